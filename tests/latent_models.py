"""A small latent model, made once for all tests that need one."""

import functools
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from diffusion_eqx.config import LDMConfig, NoiseScheduleConfig, UNetBackboneConfig
from diffusion_eqx.models import LDMModel, build_schedule
from tests.filled import filled


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
    images = model.decode(jax.random.normal(jax.random.key(3), (4, 5, 3, 3)))
    # Neither grey nor black and white, or tests of images would prove nothing.
    assert 0.05 < float(jnp.std(images)) < 0.9
    return model
