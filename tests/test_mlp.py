"""The backbone for vectors learns a distribution of points."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from diffusion_eqx.config import TrainingConfig
from diffusion_eqx.data import ArrayDataset
from diffusion_eqx.denoiser import Denoiser
from diffusion_eqx.losses import DenoisingLoss
from diffusion_eqx.nn import MLP
from diffusion_eqx.parameterizations import VPrediction
from diffusion_eqx.samplers import DDIMSampler, sample
from diffusion_eqx.schedules import DiscreteSchedule, cosine_betas
from diffusion_eqx.training import averaged, fit, make_recipe

MEANS = np.array([[0.8, 0.5], [-0.7, 0.4], [0.1, -0.8]])
STD = 0.15


def mixture(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Points of three Gaussians in turn, and which."""
    rng = np.random.default_rng(seed)
    component = np.arange(count) % 3
    points = MEANS[component] + STD * rng.standard_normal((count, 2))
    return points.astype(np.float32), component.astype(np.int32)


def energy_distance(x: np.ndarray, y: np.ndarray) -> float:
    """Mean energy distance (Székely & Rizzo 2013) of the projections on eight directions."""
    angles = np.pi * np.arange(8) / 8
    directions = np.stack([np.cos(angles), np.sin(angles)])
    pairs = zip((x @ directions).T, (y @ directions).T, strict=True)
    return float(np.mean([stats.energy_distance(a, b) for a, b in pairs]))


@pytest.fixture(scope="module")
def point_denoiser():
    network = MLP(2, width=64, depth=2, embedding_dim=32, num_classes=3, key=jax.random.key(0))
    denoiser = Denoiser(network, DiscreteSchedule(cosine_betas(1000)), VPrediction(), null=3)
    training = TrainingConfig(
        steps=800, batch_size=256, learning_rate=5e-3, ema_decay=0.99, log_every=200
    )
    recipe = make_recipe(training, DenoisingLoss(denoiser, label_dropout=0.1))
    state, _ = fit(network, ArrayDataset(*mixture(30_000, 0)), recipe, training)
    return Denoiser(averaged(state), denoiser.schedule, denoiser.parameterization, null=3)


def test_points_drawn_with_an_mlp_are_of_the_mixture(point_denoiser):
    """And of the component asked for; a wrong mixture of the same size would be noticed."""
    labels = jnp.arange(6000) % 3
    drawn = np.asarray(
        sample(
            point_denoiser,
            DDIMSampler(),
            (2,),
            count=6000,
            steps=50,
            key=jax.random.key(1),
            cond=labels,
        )
    )
    real, other = mixture(6000, 1)[0], mixture(6000, 2)[0]
    limit = 0.07
    assert energy_distance(drawn, real) < limit
    assert energy_distance(0.9 * real, other) > limit
    assert energy_distance(real[real[:, 0] > -0.5], other) > limit
    for component in range(3):
        points = drawn[np.asarray(labels) == component]
        np.testing.assert_allclose(points.mean(0), MEANS[component], atol=0.05)
        np.testing.assert_allclose(points.std(0), STD, atol=0.04)
