"""What a schedule is: alpha(t) and sigma(t), and all that follows from them.

A clean example x0 becomes x_t = alpha(t)·x0 + sigma(t)·eps with eps ~ N(0, I). Time runs from 0
(clean) to 1 (noise). Everything else is derived here, once:

    log_snr(t)  = log(alpha(t)² / sigma(t)²)

Discrete timesteps 0 … T−1, in which networks are trained, are the times t = (timestep + 1) / T.
"""

from abc import abstractmethod

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from diffusion_eqx._typing import Batch, Time


class AbstractSchedule(eqx.Module):
    """alpha(t) and sigma(t) for t in [0, 1]; a user's own schedule defines just these two.

    `num_timesteps` is T: how finely [0, 1] is divided where integer timesteps are spoken of.
    """

    num_timesteps: eqx.AbstractVar[int]

    @abstractmethod
    def alpha(self, t: Float[Array, "*s"]) -> Float[Array, "*s"]:
        """Scale of the signal at time t."""

    @abstractmethod
    def sigma(self, t: Float[Array, "*s"]) -> Float[Array, "*s"]:
        """Standard deviation of the noise at time t."""

    def log_snr(self, t: Float[Array, "*s"]) -> Float[Array, "*s"]:
        """log(alpha² / sigma²), infinite where there is no noise."""
        return 2.0 * (jnp.log(self.alpha(t)) - jnp.log(self.sigma(t)))

    def time(self, timestep: Int[Array, "*s"]) -> Float[Array, "*s"]:
        """The time t = (timestep + 1) / T of an integer timestep."""
        return (timestep.astype(jnp.float32) + 1.0) / self.num_timesteps

    def timestep(self, t: Float[Array, "*s"]) -> Float[Array, "*s"]:
        """The (real-valued) timestep t·T − 1 of a time; inverse of `time`.

        Times that came from integers give those integers exactly: a difference of float32 rounding
        would be magnified by the high frequencies of the time embedding.
        """
        real = t * self.num_timesteps - 1.0
        nearest = jnp.round(real)
        rounding = self.num_timesteps * 2.0**-21
        return jnp.where(jnp.abs(real - nearest) <= rounding, nearest, real)

    def perturb(self, x0: Batch, t: Time, noise: Batch) -> Batch:
        """x_t = alpha(t)·x0 + sigma(t)·noise (Ho et al. 2020, eq. 4)."""
        return like(self.alpha(t), x0) * x0 + like(self.sigma(t), x0) * noise


def like(coefficient: Time, x: Batch) -> Float[Array, "..."]:
    """Give a number per example (or one for all) the axes it needs to multiply `x`."""
    return coefficient.reshape(coefficient.shape + (1,) * (x.ndim - coefficient.ndim))
