"""Small networks with random weights, which compile in seconds."""

from typing import Any

import jax
import jax.numpy as jnp

from diffusion_eqx.nn import MLP, ConvAutoencoder, DiT, UNet
from tests.filled import filled

CLASSES = 3


def small_unet(**changes: Any) -> UNet:
    """For images of two channels and any size; attends in the middle."""
    fields = {
        "in_channels": 2,
        "out_channels": 2,
        "channels": (8,),
        "num_res_blocks": 1,
        "attention_levels": (),
        "embedding_dim": 16,
        "num_classes": CLASSES,
        "activation": jax.nn.silu,
        "dropout": 0.0,
        "head_dim": 4,
        "norm_groups": 2,
    }
    return filled(UNet, **(fields | changes))


def small_dit(**changes: Any) -> DiT:
    """For images of two channels and even size."""
    fields = {
        "in_channels": 2,
        "out_channels": 2,
        "patch_size": 2,
        "dim": 16,
        "depth": 2,
        "heads": 2,
        "mlp_ratio": 2.0,
        "num_classes": CLASSES,
        "dropout": 0.0,
    }
    return filled(DiT, **(fields | changes))


def small_mlp(**changes: Any) -> MLP:
    """For vectors of five numbers."""
    return filled(MLP, 5, **({"width": 16, "depth": 2, "num_classes": CLASSES} | changes))


def small_autoencoder(**changes: Any) -> ConvAutoencoder:
    """For images of 6x4 pixels and two channels."""
    fields = {
        "image_shape": (6, 4, 2),
        "latent_channels": 2,
        "encoder_dims": (4, 8),
        "decoder_dims": (8, 4),
        "num_res_blocks": 1,
        "variational": True,
        "activation": jax.nn.silu,
        "head_dim": 4,
        "norm_groups": 2,
    }
    return filled(ConvAutoencoder, **(fields | changes))


BACKBONES = {
    "unet": (small_unet, (6, 4, 2)),
    "dit": (small_dit, (6, 4, 2)),
    "mlp": (small_mlp, (5,)),
}
"""Name to the function that makes the network, and the shape of its examples."""


def inputs(shape: tuple[int, ...], batch: int = 3) -> tuple[jax.Array, jax.Array, jax.Array]:
    """x, c_noise and labels for a backbone of `CLASSES` classes."""
    x = jax.random.normal(jax.random.key(5), (batch, *shape), jnp.float32)
    return x, jnp.linspace(1.0, 999.0, batch, dtype=jnp.float32), jnp.arange(batch) % CLASSES
