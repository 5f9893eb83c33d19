"""DDPM and DDIM give what diffusers' schedulers give, from the same network and noise.

diffusers' loop runs in torch and calls our network, so only the schedulers differ. DDIM with clipping
is compared under `use_clipped_model_output`: when x0 is clipped our eps follows from it, as in the
original code of DDPM's authors; diffusers by default keeps the network's eps, so that the pair no longer
explains x_t.
"""

import sys
from unittest import mock

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion_eqx.denoiser import Denoiser
from diffusion_eqx.exact import GaussianDenoiser
from diffusion_eqx.guidance import Clipping, Guided
from diffusion_eqx.parameterizations import EpsilonPrediction, VPrediction, X0Prediction
from diffusion_eqx.samplers import (
    DDIMSampler,
    DDPMSampler,
    LeadingGrid,
    TrailingGrid,
    draw,
    image_keys,
    sample_between,
)
from diffusion_eqx.schedules import DiscreteSchedule, scaled_linear_betas
from tests.catalogue import SCHEDULES as OURS
from tests.oracle_network import OracleNetwork

pytestmark = [pytest.mark.peer, pytest.mark.long]

SHAPE = (8, 8, 1)
COUNT = 4
SCHEDULES = {"linear": "linear", "scaled_linear": "scaled_linear", "cosine": "squaredcos_cap_v2"}
PREDICTIONS = {
    "epsilon": EpsilonPrediction(),
    "sample": X0Prediction(),
    "v_prediction": VPrediction(),
}
OURS = {**OURS, "scaled_linear": DiscreteSchedule(scaled_linear_betas(1000, 1e-4, 0.02))}


class Convolutions(eqx.Module):
    """A small network of random weights, no simple function of its input."""

    inner: jax.Array
    outer: jax.Array

    def __init__(self):
        rng = np.random.default_rng(0)
        self.inner = jnp.asarray(rng.standard_normal((3, 3, 1, 8)) / 3, jnp.float32)
        self.outer = jnp.asarray(rng.standard_normal((3, 3, 8, 1)) / 9, jnp.float32)

    def __call__(self, x, c_noise, cond, *, key):
        layout = ("NHWC", "HWIO", "NHWC")
        hidden = jax.lax.conv_general_dilated(
            x, self.inner, (1, 1), "SAME", dimension_numbers=layout
        )
        told = jnp.sin(c_noise[:, None] / 1000 * jnp.arange(1, 9)[None].astype(jnp.float32))
        hidden = jnp.tanh(hidden + told[:, None, None])
        return jax.lax.conv_general_dilated(
            hidden, self.outer, (1, 1), "SAME", dimension_numbers=layout
        )


def build(schedule_type, prediction_type) -> Denoiser:
    """As good as a trained network, so that samples are as large as images; yet not a simple function."""
    schedule, parameterization = OURS[schedule_type], PREDICTIONS[prediction_type]
    oracle = GaussianDenoiser(jnp.full(SHAPE, 0.2), jnp.full(SHAPE, 0.5), schedule)
    backbone = OracleNetwork(parameterization, oracle, Convolutions())
    return Denoiser(backbone, schedule, parameterization)


def network_of(denoiser):
    return eqx.filter_jit(lambda x, timestep: denoiser.backbone(x, timestep, None, key=None))


def peer(kind, schedule_type, prediction_type, clip, spacing):
    import diffusers

    common = {
        "num_train_timesteps": 1000,
        "beta_start": 1e-4,
        "beta_end": 0.02,
        "beta_schedule": SCHEDULES[schedule_type],
        "prediction_type": prediction_type,
        "clip_sample": clip,
        "timestep_spacing": spacing,
    }
    if kind == "ddpm":
        return diffusers.DDPMScheduler(**common, variance_type="fixed_small")
    return diffusers.DDIMScheduler(**common, set_alpha_to_one=True)


def run_peer(scheduler, network, noise, steps, step_noise, **options):
    import torch

    scheduler.set_timesteps(steps)
    x = torch.from_numpy(np.array(noise))
    for index, timestep in enumerate(scheduler.timesteps):
        output = network(jnp.asarray(x.numpy()), jnp.full(COUNT, float(timestep)))
        output = torch.from_numpy(np.array(output))
        arguments = dict(options)
        given = torch.from_numpy(np.array(step_noise(index)))
        if options.get("eta"):
            arguments["variance_noise"] = given
        # DDPMScheduler draws its own noise: let it draw ours.
        with mock.patch.object(
            sys.modules[type(scheduler).__module__], "randn_tensor", return_value=given
        ):
            x = scheduler.step(output, timestep, x, **arguments).prev_sample
    return x.numpy()


@pytest.mark.parametrize("clip", [False, True], ids=["raw", "clip"])
@pytest.mark.parametrize("prediction_type", PREDICTIONS)
@pytest.mark.parametrize("schedule_type", SCHEDULES)
def test_ddim_equals_diffusers(schedule_type, prediction_type, clip):
    denoiser = build(schedule_type, prediction_type)
    network = network_of(denoiser)
    denoiser = Guided(denoiser, Clipping()) if clip else denoiser
    key = jax.random.key(5)
    keys = image_keys(key, COUNT)
    noise = draw(keys, 0, SHAPE)
    for steps, eta, spacing in [(10, 0.0, "leading"), (20, 0.0, "trailing"), (10, 0.7, "trailing")]:
        grid = LeadingGrid() if spacing == "leading" else TrailingGrid()
        ours = run_ours(denoiser, DDIMSampler(eta, grid=grid), noise, steps, key)
        theirs = run_peer(
            peer("ddim", schedule_type, prediction_type, clip, spacing),
            network,
            noise,
            steps,
            lambda index: draw(keys, index + 1, SHAPE),
            eta=eta,
            use_clipped_model_output=clip,
        )
        assert_equal(ours, theirs)


@pytest.mark.parametrize("clip", [False, True], ids=["raw", "clip"])
@pytest.mark.parametrize("prediction_type", PREDICTIONS)
@pytest.mark.parametrize("schedule_type", SCHEDULES)
def test_ddpm_equals_diffusers(schedule_type, prediction_type, clip):
    denoiser = build(schedule_type, prediction_type)
    network = network_of(denoiser)
    denoiser = Guided(denoiser, Clipping()) if clip else denoiser
    key = jax.random.key(6)
    keys = image_keys(key, COUNT)
    noise = draw(keys, 0, SHAPE)
    for steps, spacing in [(10, "trailing"), (20, "leading")]:
        grid = LeadingGrid() if spacing == "leading" else TrailingGrid()
        ours = run_ours(denoiser, DDPMSampler(grid=grid), noise, steps, key)
        theirs = run_peer(
            peer("ddpm", schedule_type, prediction_type, clip, spacing),
            network,
            noise,
            steps,
            lambda index: draw(keys, index + 1, SHAPE),
        )
        assert_equal(ours, theirs)


def assert_equal(ours, theirs, rounding=0.0):
    """To 1e-4 of the samples' size, and what the peer rounds off.

    The size is that of images but for one case: without clipping, an error of epsilon at the end of the
    cosine schedule is divided by alpha = 5e-5.
    """
    size = max(1.0, float(np.abs(theirs).max()))
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=(1e-4 + rounding) * size)


def run_ours(denoiser, sampler, noise, steps, key):
    """Sample from noise of standard deviation exactly 1."""
    return sample_between(denoiser, sampler, noise, begin=0, end=steps, steps=steps, key=key)
