"""The score model: what it calls a score, and how its network is read."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion_eqx.config import ScoreDiffusionConfig, UNetBackboneConfig
from diffusion_eqx.denoiser import GaussianDenoiser
from diffusion_eqx.models import ScoreDiffusionModel
from tests.perturbed import perturbed

BACKBONE = UNetBackboneConfig(hidden_dims=(8,), time_embedding_dim=8, num_classes=3)
TIMES = jnp.array([0.05, 0.4, 1.0])


def make(key, **fields) -> ScoreDiffusionModel:
    config = ScoreDiffusionConfig(backbone=BACKBONE, input_shape=(6, 4, 1), **fields)
    model = ScoreDiffusionModel(config, key=key)
    noisy = perturbed(model.denoiser.backbone, key=key, scale=0.3)
    return eqx.tree_at(lambda m: m.denoiser.backbone, model, noisy)


@pytest.mark.parametrize("sde_type", ["ve", "vp"])
def test_the_score_of_gaussian_data_is_exact(sde_type, getkey):
    """grad log N(x; alpha·m, alpha²s² + sigma²) = −(x − alpha·m)/(alpha²s² + sigma²)."""
    model = make(getkey(), sde_type=sde_type)
    schedule = model.denoiser.schedule
    mean, std = jnp.full((6, 4, 1), 0.3), jnp.full((6, 4, 1), 0.2)
    exact = GaussianDenoiser(mean, std, schedule)
    model = eqx.tree_at(lambda m: m.denoiser, model, exact)
    x = jax.random.normal(getkey(), (3, 6, 4, 1))
    alpha, sigma = (
        np.asarray(f(TIMES)).reshape(3, 1, 1, 1) for f in (schedule.alpha, schedule.sigma)
    )
    expected = -(x - alpha * 0.3) / (alpha**2 * 0.2**2 + sigma**2)
    np.testing.assert_allclose(model.score(x, TIMES), expected, rtol=2e-4, atol=2e-5)


@pytest.mark.parametrize("scaling", [1.0, 2.5])
def test_the_network_gives_the_score_times_sigma(scaling, getkey):
    """score = scaling·F(x/sqrt(1 + sigma²))/sigma under variance-exploding noise."""
    model = make(getkey(), score_scaling=scaling)
    x, labels = 3.0 * jax.random.normal(getkey(), (3, 6, 4, 1)), jnp.arange(3)
    sigma = np.asarray(model.denoiser.schedule.sigma(TIMES))
    shaped = sigma.reshape(3, 1, 1, 1)
    timesteps = 1000 * TIMES - 1
    output = model.denoiser.backbone(x / np.sqrt(1 + shaped**2), timesteps, labels, key=None)
    score = model.score(x, TIMES, labels)
    np.testing.assert_allclose(score, scaling * output / shaped, rtol=1e-3, atol=1e-4)


def test_the_score_by_karras_is_that_of_his_denoiser(getkey):
    """score = (D(x; sigma) − x)/sigma², D = c_skip·x + c_out·F(c_in·x, log(sigma)/4), sigma_data = 0.5."""
    model = make(getkey(), prediction_type="edm")
    x, labels = 3.0 * jax.random.normal(getkey(), (3, 6, 4, 1)), jnp.arange(3)
    sigma = np.asarray(model.denoiser.schedule.sigma(TIMES))
    shaped = sigma.reshape(3, 1, 1, 1)
    total = shaped**2 + 0.25
    output = model.denoiser.backbone(x / np.sqrt(total), jnp.log(sigma) / 4, labels, key=None)
    clean = 0.25 / total * x + shaped * 0.5 / np.sqrt(total) * output
    score = model.score(x, TIMES, labels)
    np.testing.assert_allclose(score, (clean - x) / shaped**2, rtol=1e-3, atol=1e-4)


def test_only_scores_are_scaled():
    with pytest.raises(ValueError, match=r"score_scaling=2\.0 is of prediction_type"):
        ScoreDiffusionConfig(prediction_type="edm", score_scaling=2.0)
