"""A small latent model, made once for all tests that need one."""

import functools
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from diffusion_eqx.config import LDMConfig, NoiseScheduleConfig, UNetBackboneConfig
from diffusion_eqx.models import LDMModel
from diffusion_eqx.models.array_file import path_name
from diffusion_eqx.models.build import build_schedule


def small_latent_config(**changes: Any) -> LDMConfig:
    """Images of 9x6, latents of 5x3."""
    settings: dict[str, Any] = {
        "name": "small-latent",
        "backbone": UNetBackboneConfig(
            hidden_dims=(8, 8), in_channels=3, out_channels=3, time_embedding_dim=16, num_classes=4
        ),
        "noise_schedule": NoiseScheduleConfig(schedule_type="cosine"),
        "input_shape": (9, 6, 1),
        "latent_dim": 3,
        "encoder_hidden_dims": (8, 8),
        "decoder_hidden_dims": (8, 8),
        "prediction_type": "v_prediction",
    }
    return LDMConfig(**(settings | changes))


def filled(build: Any, *arguments: Any, seed: int = 0, **settings: Any) -> Any:
    """What `build` makes, all its weights random (none at a start of zero) and none drawn by jax.

    Drawing each of many shapes by jax takes far longer to compile than what is tested here.
    """
    rng = np.random.default_rng(seed)

    def leaf(path: tuple[Any, ...], expected: Any) -> Any:
        if not isinstance(expected, jax.ShapeDtypeStruct):
            return expected
        fan_in = int(np.prod(expected.shape[:-1])) if len(expected.shape) > 1 else 100
        noise = rng.standard_normal(expected.shape) / fan_in**0.5
        offset = 1.0 if path_name(path).endswith("gamma") else 0.0
        return jnp.asarray(noise + offset, expected.dtype)

    empty = eqx.filter_eval_shape(build, *arguments, key=jax.random.key(0), **settings)
    return jax.tree_util.tree_map_with_path(leaf, empty)


@functools.cache
def small_latent_model() -> LDMModel:
    """Its weights are random, and its scale factor is not 1."""
    config = small_latent_config()
    model = filled(LDMModel, config)
    model = eqx.tree_at(
        lambda m: (m.denoiser.schedule, m.scale_factor),
        model,
        (build_schedule(config.noise_schedule), jnp.asarray(0.8)),
    )
    images = eqx.filter_jit(model.decode)(jax.random.normal(jax.random.key(3), (4, 5, 3, 3)))
    # Neither grey nor black and white, or tests of images would prove nothing.
    assert 0.05 < float(jnp.std(images)) < 0.9
    return model
