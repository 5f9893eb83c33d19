"""Keeping predicted clean images in their range."""

import equinox as eqx
import jax.numpy as jnp

from diffusion_eqx._typing import Batch, Cond, PRNGKey, Time
from diffusion_eqx.denoiser import AbstractDenoiser, Prediction
from diffusion_eqx.guidance.base import AbstractLimiter


class ClipDenoised(AbstractLimiter):
    """Clips x0 to [−1, 1] and lets eps follow from it, so that the pair still explains x_t.

    Wrap it around guidance, not inside: guidance is what pushes x0 out of range.
    """

    denoiser: AbstractDenoiser

    def __call__(
        self, x_t: Batch, t: Time, cond: Cond = None, *, key: PRNGKey | None = None
    ) -> Prediction:
        """The wrapped prediction with x0 in [−1, 1]."""
        predicted = self.denoiser(x_t, t, cond, key=key)
        return _with_x0(self, x_t, t, predicted, jnp.clip(predicted.x0, -1.0, 1.0))


class DynamicThresholding(AbstractLimiter):
    """Clips x0 to ±s and divides it by s, s being a high percentile of |x0|, at least 1.

    Saharia et al. (2022, section 2.3): under strong guidance this keeps contrast where clipping
    saturates. `percentile` is in (0, 1]; it is taken over each example. For pixels, not for latents.
    """

    denoiser: AbstractDenoiser
    percentile: float = eqx.field(static=True, default=0.995)

    def __check_init__(self):
        if not 0.0 < self.percentile <= 1.0:
            raise ValueError(f"percentile must be in (0, 1]; got {self.percentile}")

    def __call__(
        self, x_t: Batch, t: Time, cond: Cond = None, *, key: PRNGKey | None = None
    ) -> Prediction:
        """The wrapped prediction with x0 in [−1, 1]."""
        predicted = self.denoiser(x_t, t, cond, key=key)
        axes = tuple(range(1, x_t.ndim))
        size = jnp.quantile(jnp.abs(predicted.x0), self.percentile, axis=axes, keepdims=True)
        size = jnp.maximum(size, 1.0)
        return _with_x0(self, x_t, t, predicted, jnp.clip(predicted.x0, -size, size) / size)


def _with_x0(
    limiter: AbstractLimiter, x_t: Batch, t: Time, predicted: Prediction, x0: Batch
) -> Prediction:
    if limiter.exact_pair:
        return Prediction.from_x0(limiter.schedule, x_t, t, x0, predicted.variance_fraction)
    return predicted._replace(x0=x0)
