"""The guide's `LDMModel`."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from diffusion_eqx._typing import Images, Labels, Latents, PRNGKey, Real, Scalar
from diffusion_eqx.config import DiffusionTrainingConfig, LDMConfig
from diffusion_eqx.denoiser import AbstractDenoiser, Denoiser
from diffusion_eqx.guidance.classifier_free import Scale
from diffusion_eqx.models.base import AbstractDiffusionModel, assemble
from diffusion_eqx.models.build import build_autoencoder
from diffusion_eqx.nn import AbstractAutoencoder
from diffusion_eqx.samplers import AbstractSampler, ClippedSampler, DecodedSampler, build_sampler

_GENERATE_STEPS = 50


class LDMModel(AbstractDiffusionModel):
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
        self.denoiser = assemble(config, key=key_denoiser)
        self.autoencoder = autoencoder
        self.scale_factor = jnp.asarray(scale_factor, jnp.float32)

    def encode(self, images: Images) -> Latents:
        """Images in [−1, 1] to the latents that are denoised: scale_factor · mean, (n, *sample_shape)."""
        return self.scale_factor * eqx.nn.inference_mode(self.autoencoder).encode(images)

    def decode(self, latents: Latents) -> Images:
        """Such latents to images (n, *input_shape), clipped to [−1, 1]."""
        return jnp.clip(self._decoder()(latents), -1.0, 1.0)

    def generate(
        self,
        n_samples: int,
        *,
        key: PRNGKey,
        labels: Labels | None = None,
        guidance_scale: Scale | None = None,
    ) -> Images:
        """DDIM in 50 steps, or as many as there are timesteps. Shapes and range as `sample`."""
        steps = min(_GENERATE_STEPS, self.config.noise_schedule.num_timesteps)
        return self.sample(
            n_samples, "ddim", steps, key=key, labels=labels, guidance_scale=guidance_scale
        )

    def sample(
        self,
        n_samples_or_shape: int | tuple[int, ...],
        scheduler: str = "ddim",
        steps: int | None = None,
        *,
        key: PRNGKey,
        labels: Labels | None = None,
        first: int = 0,
        **fields: Any,
    ) -> Images:
        """Draw latents with any sampler and decode them. Returns (n, height, width, channels) in [−1, 1].

        `n_samples_or_shape`: a count, or a full shape of images whose first entry is the count. `steps`
        defaults to all timesteps. `fields` as `sampler`; with `guidance_scale`, `labels` are required.

        **Raises:** `ValueError` if steps, shape or labels do not fit the model.
        """
        sampler = self.sampler(scheduler, **fields)
        return self.draw(n_samples_or_shape, sampler, steps, key=key, labels=labels, first=first)

    def sampler_over(
        self, denoiser: AbstractDenoiser, scheduler: str, **fields: Any
    ) -> AbstractSampler:
        """The sampler of that name over any denoiser of this model's latents; its samples are images."""
        sampler = build_sampler(scheduler, denoiser, **fields)
        return ClippedSampler(DecodedSampler(sampler, self._decoder()))

    def loss(self, x0: Images, labels: Labels | None = None, *, key: PRNGKey) -> Scalar:
        """The denoising loss of a batch of images' latents; the autoencoder is not trained by it."""
        latents = jax.lax.stop_gradient(self.encode(x0))
        loss = self.training_loss(DiffusionTrainingConfig())
        return loss(self.denoiser.backbone, latents, labels, key=key)

    def _decoder(self) -> "_Decoder":
        return _Decoder(eqx.nn.inference_mode(self.autoencoder), self.scale_factor)


class _Decoder(eqx.Module):
    """From what is denoised to images."""

    autoencoder: AbstractAutoencoder
    scale_factor: Float[Array, ""]

    def __call__(self, latents: Latents) -> Images:
        return self.autoencoder.decode(latents / self.scale_factor)
