"""Keeping predicted clean images in their range."""

import jax
import jax.numpy as jnp

from diffusion_eqx._typing import Batch, Cond, Real
from diffusion_eqx._values import number
from diffusion_eqx.denoiser import AbstractDenoiser, Prediction
from diffusion_eqx.guidance.base import AbstractLimiter, limited
from diffusion_eqx.schedules import NoiseLevel, over


class Clipping(AbstractLimiter):
    """Clips x0 to [−1, 1]; eps follows from it, so that the pair still explains x. For pixels."""

    def __call__(
        self, denoiser: AbstractDenoiser, x: Batch, level: NoiseLevel, cond: Cond
    ) -> Prediction:
        """The prediction with x0 in [−1, 1]."""
        predicted = denoiser(x, level, cond)
        return limited(denoiser, x, level, predicted, jnp.clip(predicted.x0, -1.0, 1.0))


class DynamicThresholding(AbstractLimiter):
    """Clips x0 to ±s and divides it by s, s being a high percentile of |x0| and at least 1.

    Under strong guidance this keeps contrast where clipping saturates (Saharia et al. 2022, section
    2.3). For pixels, not for latents.

    - `percentile`: from 0 to 1, taken over each example.
    """

    percentile: Real = number(
        0.995, minimum=0.0, maximum=1.0, about="share of an image's values that are not clipped"
    )

    def __call__(
        self, denoiser: AbstractDenoiser, x: Batch, level: NoiseLevel, cond: Cond
    ) -> Prediction:
        """The prediction with x0 in [−1, 1]."""
        predicted = denoiser(x, level, cond)
        share = jnp.broadcast_to(self.percentile, len(x))
        size = over(jnp.maximum(jax.vmap(jnp.quantile)(jnp.abs(predicted.x0), share), 1.0), x)
        return limited(denoiser, x, level, predicted, jnp.clip(predicted.x0, -size, size) / size)
