"""`LDMModel`."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from diffusion_eqx._typing import Images, Latents, PRNGKey, Real
from diffusion_eqx.config import LDMConfig
from diffusion_eqx.denoiser import Denoiser
from diffusion_eqx.models.aliases import AbstractAliasedModel
from diffusion_eqx.models.build import build_autoencoder, build_denoiser
from diffusion_eqx.nn import AbstractAutoencoder
from diffusion_eqx.precision import in_precision_of


class LDMModel(AbstractAliasedModel):
    """A diffusion in the latent space of an autoencoder (Rombach et al. 2022).

    The denoiser sees latents times `scale_factor`; whatever the model draws is decoded.

    `autoencoder`: a trained one, in place of one with fresh weights. `scale_factor`: as measured on data,
    where the configuration leaves it open; until one is given there, it is 1. A model with an autoencoder
    of another build than `config.autoencoder` can be used and exported, but `load_model` cannot build it
    again.

    **Raises:** `ValueError` if the autoencoder's shapes are not those of the configuration, or a scale
    factor is given besides the configuration's.
    """

    denoiser: Denoiser
    autoencoder: AbstractAutoencoder
    # An array, so that it is saved with the weights, and no other model is compiled for another scale.
    scale_factor: Float[Array, ""]
    config: LDMConfig = eqx.field(static=True)

    def __init__(
        self,
        config: LDMConfig,
        *,
        autoencoder: AbstractAutoencoder | None = None,
        scale_factor: Real | None = None,
        key: PRNGKey,
    ):
        """A model with fresh weights, but for those given."""
        key_denoiser, key_autoencoder = jax.random.split(key)
        if autoencoder is None:
            autoencoder = build_autoencoder(config.autoencoder, key=key_autoencoder)
        found = (autoencoder.image_shape, autoencoder.latent_shape)
        if found != (config.input_shape, config.sample_shape):
            raise ValueError(
                f"the autoencoder turns images of shape {found[0]} into latents of shape {found[1]}; the "
                f"configuration asks for {config.input_shape} and {config.sample_shape}"
            )
        if scale_factor is not None and config.scale_factor is not None:
            raise ValueError(
                f"the configuration says scale_factor={config.scale_factor}; set it to None there to give "
                "a measured one"
            )
        if scale_factor is None:
            scale_factor = 1.0 if config.scale_factor is None else config.scale_factor
        self.config = config
        self.denoiser = build_denoiser(config, key=key_denoiser)
        self.autoencoder = autoencoder
        self.scale_factor = jnp.asarray(scale_factor, jnp.float32)

    @property
    def decoding(self) -> "LatentDecoder":
        """The autoencoder's way back, and clipping to [−1, 1]."""
        return LatentDecoder(eqx.nn.inference_mode(self.autoencoder), self.scale_factor)

    def encode(self, images: Images) -> Latents:
        """Images in [−1, 1] to the latents that are denoised.

        Scale_factor · mean, (batch, *sample_shape).
        """
        autoencoder = eqx.nn.inference_mode(self.autoencoder)
        latents = in_precision_of(autoencoder, autoencoder.encode, images)
        return self.scale_factor.astype(latents.dtype) * latents


class LatentDecoder(eqx.Module):
    """From what a latent model denoises to images, clipped to [−1, 1]."""

    autoencoder: AbstractAutoencoder
    scale_factor: Float[Array, ""]

    def __call__(self, latents: Latents) -> Images:
        """The images, (batch, *input_shape)."""
        scaled = latents / self.scale_factor.astype(latents.dtype)
        return in_precision_of(self.autoencoder, self.autoencoder.decode, scaled).clip(-1.0, 1.0)
