"""Keeping predicted clean images in their range."""

import jax.numpy as jnp

from diffusion_eqx._typing import Batch, Cond, PRNGKey, Time
from diffusion_eqx.denoiser import AbstractDenoiser, Prediction
from diffusion_eqx.schedules import AbstractSchedule


class ClipDenoised(AbstractDenoiser):
    """Clips x0 to [−1, 1] and lets eps follow from it, so that the pair still explains x_t.

    Wrap it around guidance, not inside: guidance is what pushes x0 out of range.
    """

    denoiser: AbstractDenoiser

    @property
    def schedule(self) -> AbstractSchedule:
        """That of the wrapped denoiser."""
        return self.denoiser.schedule

    def __call__(
        self, x_t: Batch, t: Time, cond: Cond = None, *, key: PRNGKey | None = None
    ) -> Prediction:
        """The wrapped prediction with x0 in [−1, 1]."""
        x0, _ = self.denoiser(x_t, t, cond, key=key)
        return Prediction.from_x0(self.schedule, x_t, t, jnp.clip(x0, -1.0, 1.0))
