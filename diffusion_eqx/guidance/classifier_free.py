"""Classifier-free guidance: extrapolate from the unconditional to the conditional prediction."""

import jax
import jax.numpy as jnp

from diffusion_eqx._typing import Batch, Cond, PRNGKey, Real, Time
from diffusion_eqx.denoiser import AbstractDenoiser, Prediction
from diffusion_eqx.schedules import AbstractSchedule, like


class ClassifierFreeGuidance(AbstractDenoiser):
    """uncond + w·(cond − uncond) (Ho & Salimans 2022, eq. 6, with w here being their 1 + w).

    `w = 1` is exactly the conditional prediction, `w = 0` the unconditional one. Both branches run in
    one call of twice the batch. `unconditional_conditioning` is the null token: a PyTree like the
    `cond` of a single example, e.g. the integer `num_classes`.

    Outside `interval`, a pair of times, the scale is 1: guidance at the noisiest times makes samples
    alike, and at the cleanest it does nothing (Kynkäänniemi et al. 2024).
    """

    denoiser: AbstractDenoiser
    guidance_scale: Real
    unconditional_conditioning: Cond
    interval: tuple[float, float] = (0.0, 1.0)

    @property
    def schedule(self) -> AbstractSchedule:
        """That of the wrapped denoiser."""
        return self.denoiser.schedule

    def __call__(
        self, x_t: Batch, t: Time, cond: Cond = None, *, key: PRNGKey | None = None
    ) -> Prediction:
        """The guided prediction. `cond` is required.

        **Raises:** `ValueError` if `cond` is None.
        """
        if cond is None:
            raise ValueError(
                "classifier-free guidance needs a conditioning (e.g. class labels), but cond is "
                "None; pass cond, or sample from the unguided denoiser"
            )
        null = jax.tree.map(
            lambda c, n: jnp.broadcast_to(jnp.asarray(n, c.dtype), c.shape),
            cond,
            self.unconditional_conditioning,
        )
        both = jax.tree.map(lambda c, n: jnp.concatenate([c, n]), cond, null)
        both_t = t if t.ndim == 0 else jnp.concatenate([t, t])
        x0, _ = self.denoiser(jnp.concatenate([x_t, x_t]), both_t, both, key=key)
        x0_cond, x0_uncond = jnp.split(x0, 2)
        # Written around the conditional branch, so that w = 1 gives it bit for bit.
        inside = (t >= self.interval[0]) & (t <= self.interval[1])
        extra = like(jnp.where(inside, self.guidance_scale - 1.0, 0.0), x_t)
        x0 = x0_cond + extra * (x0_cond - x0_uncond)
        return Prediction.from_x0(self.schedule, x_t, t, x0)
