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

from diffusion_eqx.config import DDIMConfig, NoiseScheduleConfig, UNetBackboneConfig
from diffusion_eqx.denoiser import GaussianDenoiser
from diffusion_eqx.models import DDIMModel
from diffusion_eqx.samplers import DDIMSampler, DDPMSampler, LeadingGrid, TrailingGrid
from diffusion_eqx.samplers.noise import draw, image_keys
from tests.oracle_network import OracleNetwork
from tests.perturbed import perturbed

pytestmark = pytest.mark.peer

SHAPE = (8, 8, 1)
COUNT = 4
SCHEDULES = {"linear": "linear", "scaled_linear": "scaled_linear", "cosine": "squaredcos_cap_v2"}
PREDICTIONS = ["epsilon", "sample", "v_prediction"]


def build(schedule_type, prediction_type, clip):
    config = DDIMConfig(
        backbone=UNetBackboneConfig(hidden_dims=(8,), time_embedding_dim=16),
        noise_schedule=NoiseScheduleConfig(schedule_type=schedule_type),
        input_shape=SHAPE,
        prediction_type=prediction_type,
        clip_denoised=clip,
    )
    model = DDIMModel(config, key=jax.random.key(0))
    # As good as a trained network, so that samples are as large as images; yet not a simple function.
    unet = perturbed(model.denoiser.backbone, key=jax.random.key(1))
    oracle = GaussianDenoiser(jnp.full(SHAPE, 0.2), jnp.full(SHAPE, 0.5), model.denoiser.schedule)
    backbone = OracleNetwork(prediction_type, oracle, unet)
    return eqx.tree_at(lambda m: m.denoiser.backbone, model, backbone)


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
        output = network(jnp.asarray(x.numpy()), jnp.full(COUNT, int(timestep)))
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
    model = build(schedule_type, prediction_type, clip)
    network = eqx.filter_jit(eqx.nn.inference_mode(model))
    key = jax.random.key(5)
    keys = image_keys(key, COUNT)
    noise = draw(keys, 0, SHAPE)
    for steps, eta, spacing in [(10, 0.0, "leading"), (20, 0.0, "trailing"), (10, 0.7, "trailing")]:
        grid = LeadingGrid() if spacing == "leading" else TrailingGrid()
        ours = run_ours(DDIMSampler(model.guided(None), grid, eta), noise, steps, key)
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
    model = build(schedule_type, prediction_type, clip)
    network = eqx.filter_jit(eqx.nn.inference_mode(model))
    key = jax.random.key(6)
    keys = image_keys(key, COUNT)
    noise = draw(keys, 0, SHAPE)
    for steps, spacing in [(10, "trailing"), (20, "leading")]:
        grid = LeadingGrid() if spacing == "leading" else TrailingGrid()
        ours = run_ours(DDPMSampler(model.guided(None), grid), noise, steps, key)
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


@eqx.filter_jit
def run_ours(sampler, noise, steps, key):
    """Sample without the final clipping, and from noise of standard deviation exactly 1."""
    from diffusion_eqx.samplers.drive import advance

    state = sampler.resume(noise, 0, steps, keys=image_keys(key, COUNT))
    return advance(sampler, state, None, begin=0, end=steps, steps=steps).x
