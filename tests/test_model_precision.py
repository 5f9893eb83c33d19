"""Whole models in another precision: drawn, saved and loaded."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion_eqx.config import NoisyClassifierConfig
from diffusion_eqx.models import (
    DDIMModel,
    NoisyClassifier,
    build_schedule,
    load_model,
    model_arrays,
    save_model,
)
from diffusion_eqx.precision import cast
from tests.filled import filled
from tests.latent_models import small_latent_model


@pytest.fixture
def pixel_model(small_config):
    model = filled(DDIMModel, small_config)
    schedule = build_schedule(small_config.noise_schedule)
    return eqx.tree_at(lambda m: m.denoiser.schedule, model, schedule)


def drawn(model):
    return model.sample(2, steps=3, labels=1, key=jax.random.key(1))


@pytest.mark.parametrize("kind", ["pixels", "latents"])
def test_a_model_in_bfloat16_draws_nearly_the_same_in_float32(kind, pixel_model):
    model = pixel_model if kind == "pixels" else small_latent_model()
    half = cast(model, jnp.bfloat16)
    found, expected = drawn(half), drawn(model)
    assert found.dtype == expected.dtype == jnp.float32
    assert 0.0 < float(jnp.abs(found - expected).mean()) < 0.03
    encoded = half.encode(expected)
    assert encoded.dtype == jnp.float32
    np.testing.assert_allclose(encoded, model.encode(expected), atol=0.05)


@pytest.mark.parametrize("kind", ["pixels", "latents"])
def test_a_file_keeps_the_precision_of_its_model(kind, pixel_model, tmp_path):
    model = cast(pixel_model if kind == "pixels" else small_latent_model(), jnp.bfloat16)
    save_model(tmp_path / "half.safetensors", model)
    loaded = load_model(tmp_path / "half.safetensors")
    assert {a.dtype.name for a in model_arrays(model).values()} >= {"bfloat16"}
    assert eqx.tree_equal(loaded, model)


def test_a_file_of_single_precision_loads_where_jax_is_set_to_double(pixel_model, tmp_path):
    save_model(tmp_path / "single.safetensors", pixel_model)
    expected = np.asarray(pixel_model.sample_from(jnp.ones((1, 8, 8, 1)), "ddim", steps=3))
    with jax.enable_x64(True):
        loaded = load_model(tmp_path / "single.safetensors")
        assert loaded.denoiser.backbone.conv_in.weight.dtype == jnp.float32
        tables = jax.tree.leaves(eqx.filter(loaded.schedule, eqx.is_array))
        assert {a.dtype.name for a in tables} == {"float64"}
        found = loaded.sample_from(jnp.ones((1, 8, 8, 1)), "ddim", steps=3)
    assert found.dtype == jnp.float64
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_a_noisy_classifier_in_bfloat16_is_called_in_float32():
    config = NoisyClassifierConfig(input_shape=(8, 8, 1), hidden_dims=(8,), num_classes=3)
    classifier = filled(NoisyClassifier, config)
    schedule = build_schedule(config.noise_schedule)
    classifier = eqx.nn.inference_mode(eqx.tree_at(lambda c: c.schedule, classifier, schedule))
    x = jax.random.normal(jax.random.key(2), (2, 8, 8, 1))
    level = classifier.schedule.at(0.5)
    found, expected = cast(classifier, jnp.bfloat16)(x, level), classifier(x, level)
    assert found.dtype == jnp.float32
    assert 0.0 < float(jnp.abs(found - expected).max()) < 0.05 * float(jnp.abs(expected).max())
