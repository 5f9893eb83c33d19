"""A small latent model, made once for all tests that need one."""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp

from diffusion_eqx.config import LDMConfig, NoiseScheduleConfig, UNetBackboneConfig
from diffusion_eqx.models import LDMModel
from tests.perturbed import perturbed


def small_latent_config(**changes) -> LDMConfig:
    """Images of 9x6, latents of 5x3."""
    settings = {
        "name": "small-latent",
        "backbone": UNetBackboneConfig(
            hidden_dims=(8, 16),
            in_channels=3,
            out_channels=3,
            time_embedding_dim=16,
            num_classes=4,
        ),
        "noise_schedule": NoiseScheduleConfig(schedule_type="cosine"),
        "input_shape": (9, 6, 1),
        "latent_dim": 3,
        "encoder_hidden_dims": (8, 16),
        "decoder_hidden_dims": (16, 8),
        "prediction_type": "v_prediction",
    }
    return LDMConfig(**(settings | changes))


@functools.cache
def small_latent_model() -> LDMModel:
    """Its weights are random, but not at their start; its scale factor is not 1."""
    model = LDMModel(small_latent_config(), scale_factor=0.8, key=jax.random.key(0))
    noisy = (
        perturbed(model.denoiser.backbone, key=jax.random.key(1), scale=0.05),
        perturbed(model.autoencoder, key=jax.random.key(2), scale=0.05),
    )
    model = eqx.tree_at(lambda m: (m.denoiser.backbone, m.autoencoder), model, noisy)
    images = model.decode(jax.random.normal(jax.random.key(3), (4, 5, 3, 3)))
    # Neither grey nor black and white, or tests of images would prove nothing.
    assert 0.02 < float(jnp.std(images)) < 0.9
    return model
