"""Adaptive projected guidance: classifier-free guidance without oversaturation."""

from typing import ClassVar

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from diffusion_eqx._typing import Batch, Cond, PRNGKey, Time
from diffusion_eqx.denoiser import AbstractDenoiser, Prediction
from diffusion_eqx.guidance.base import AbstractTwoBranchGuidance
from diffusion_eqx.guidance.classifier_free import Scale, both_branches, extra_scale
from diffusion_eqx.schedules import like


class AdaptiveProjectedGuidance(AbstractTwoBranchGuidance):
    """APG (Sadat et al. 2025, section 4 and algorithm 1, without momentum, which needs a memory).

    Of the difference d = x0_cond − x0_uncond, shortened to at most `norm_threshold`, the part parallel to
    x0_cond, which only saturates, is weighed by `parallel`:

        x0 = x0_cond + (w − 1)·(d_orthogonal + parallel·d_parallel)

    w = 1 is exactly the conditional prediction; `parallel=1` and an infinite threshold are
    `ClassifierFreeGuidance`, whose other arguments these are.
    """

    denoiser: AbstractDenoiser
    guidance_scale: Scale
    unconditional_conditioning: Cond
    interval: tuple[float, float] = (0.0, 1.0)
    norm_threshold: float = eqx.field(static=True, default=15.0)
    parallel: float = eqx.field(static=True, default=0.0)

    keeps_pair: ClassVar[bool] = True

    def __call__(
        self, x_t: Batch, t: Time, cond: Cond = None, *, key: PRNGKey | None = None
    ) -> Prediction:
        """The guided prediction. `cond` is required.

        **Raises:** `ValueError` if `cond` is None.
        """
        with_cond, without = both_branches(
            self.denoiser, x_t, t, cond, self.unconditional_conditioning, key=key
        )
        difference = with_cond.x0 - without.x0
        length = jnp.sqrt(_dot(difference, difference))
        difference *= jnp.minimum(1.0, self.norm_threshold / jnp.maximum(length, 1e-12))
        along = _dot(difference, with_cond.x0) / jnp.maximum(
            _dot(with_cond.x0, with_cond.x0), 1e-12
        )
        parallel = along * with_cond.x0
        update = difference - parallel + self.parallel * parallel
        extra = like(extra_scale(self.guidance_scale, self.interval, t), x_t)
        x0 = with_cond.x0 + extra * update
        return Prediction.from_x0(self.schedule, x_t, t, x0, with_cond.variance_fraction)


def _dot(a: Batch, b: Batch) -> Float[Array, "..."]:
    return jnp.sum(a * b, axis=tuple(range(1, a.ndim)), keepdims=True)
