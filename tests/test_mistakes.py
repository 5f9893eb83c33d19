"""Likely mistakes with parts and files of one's own are answered by what was meant."""

import equinox as eqx
import jax
import jax.numpy as jnp
import pytest

from diffusion_eqx.config import DDIMConfig, UNetBackboneConfig
from diffusion_eqx.exact import GaussianDenoiser
from diffusion_eqx.models import (
    DDIMModel,
    ModelFileError,
    load_classifier,
    load_model,
    save_model,
)
from diffusion_eqx.samplers import DDIMSampler, sample
from diffusion_eqx.schedules import VPSchedule
from tests.own_schedule import OwnSchedule

KEY = jax.random.key(0)
EXACT = GaussianDenoiser(jnp.asarray(0.3), jnp.asarray(0.5), VPSchedule())


@pytest.fixture(scope="module")
def model():
    backbone = UNetBackboneConfig(hidden_dims=(8,), time_embedding_dim=8, num_classes=3)
    config = DDIMConfig(input_shape=(4, 4, 1), backbone=backbone, num_inference_steps=2)
    return DDIMModel(config, key=KEY)


class Growing(DDIMSampler):
    """Remembers something of another shape than it began with."""

    def init(self, denoise, x, t, s):
        return jnp.zeros(len(x))

    def step(self, denoise, state, t, s):
        moved = super().step(denoise, state, t, s)
        return state.moved(moved.x, jnp.zeros((len(moved.x), 1)))


class Narrow(DDIMSampler):
    """Gives half of the numbers of each example."""

    def step(self, denoise, state, t, s):
        moved = super().step(denoise, state, t, s)
        return state.moved(moved.x[:, :1])


@pytest.mark.parametrize(
    ("sampler", "message"),
    [
        (Growing(), "init gave float32\\[2\\], step gave float32\\[2, 1\\]"),
        (Narrow(), "given examples float32\\(2, 2\\) and returned float32\\(2, 1\\)"),
    ],
)
def test_a_step_that_gives_no_state_is_told_so(sampler, message):
    with pytest.raises(TypeError, match=message):
        sample(EXACT, sampler, (2,), count=2, steps=2, key=KEY)


def test_numbers_of_every_part_are_held_to_their_ranges():
    """Of grids and schedules too, whose numbers an artifact takes as options."""
    assert OwnSchedule(2.0).power == 2.0
    with pytest.raises(ValueError, match=r"power must be between 0\.5 and 2; got 9"):
        OwnSchedule(9.0)


def test_one_timestep_is_that_of_all_images(model):
    x = jax.random.normal(KEY, (2, 4, 4, 1))
    several = jnp.full(2, 100, jnp.int32)
    for call in (
        lambda t: model.p_sample(x, t, key=KEY),
        lambda t: model.p_mean_variance(x, t).mean,
        lambda t: model.q_sample(x, t, key=KEY),
        lambda t: model.predicted_noise(x, t),
    ):
        assert jnp.allclose(call(100), call(several), atol=1e-6)


def test_files_that_are_something_else_say_what_reads_them(model, tmp_path):
    with pytest.raises(FileNotFoundError, match="is a folder"):
        load_model(tmp_path)
    path = tmp_path / "model.safetensors"
    save_model(path, model)
    with pytest.raises(ModelFileError, match="load_model reads it"):
        load_classifier(path)


def test_one_part_of_ones_own_needs_no_list(model, tmp_path):
    path = tmp_path / "bent.safetensors"
    save_model(path, eqx.tree_at(lambda m: m.denoiser.schedule, model, OwnSchedule(1.5)))
    assert load_model(path, parts=OwnSchedule).schedule == OwnSchedule(1.5)
