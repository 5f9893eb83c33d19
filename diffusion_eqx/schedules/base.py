"""What a schedule is: alpha(t) and sigma(t), and all that follows from them.

A clean example x0 becomes x_t = alpha(t)·x0 + sigma(t)·eps with eps ~ N(0, I). Time runs from 0
(clean) to 1 (noise). Everything else is derived here, once. x_t is also the solution at t of the linear
SDE dx = f(t)·x dt + g(t) dW from x0 (Kingma et al. 2021, section 3; Song et al. 2021, appendix B):

    log_snr(t)   = log(alpha² / sigma²)
    drift f(t)   = alpha' / alpha
    diffusion g² = (sigma²)' − 2·f·sigma² = −sigma²·log_snr'

Discrete timesteps 0 … T−1, in which networks are trained, are the times t = (timestep + 1) / T. The
first of them, 1/T, is the least noise that a network has learnt to remove.
"""

from abc import abstractmethod
from typing import TYPE_CHECKING, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from diffusion_eqx._typing import Batch, Time

# The range of lambda = log(alpha/sigma) that solvers need to tell apart. Below it the signal is lost in
# float32's rounding of the noise; above it noise is 0, and 1 − e^(−h) is 1 for a step of length h to there.
LEAST_LAMBDA, GREATEST_LAMBDA = -17.0, 40.0
_BISECTIONS = 40


class AbstractSchedule(eqx.Module):
    """alpha(t) and sigma(t) for t in [0, 1]; a user's own schedule defines just these two.

    `num_timesteps` is T: how finely [0, 1] is divided where integer timesteps are spoken of.
    """

    # A type checker takes an AbstractVar for an argument of __init__, a ClassVar not.
    if TYPE_CHECKING:
        num_timesteps: ClassVar[int]
    else:
        num_timesteps: eqx.AbstractVar[int]

    @abstractmethod
    def alpha(self, t: Float[Array, "*s"]) -> Float[Array, "*s"]:
        """Scale of the signal at time t."""

    @abstractmethod
    def sigma(self, t: Float[Array, "*s"]) -> Float[Array, "*s"]:
        """Standard deviation of the noise at time t."""

    def log_snr(self, t: Float[Array, "*s"]) -> Float[Array, "*s"]:
        """log(alpha² / sigma²), infinite where there is no noise or no signal."""
        return 2.0 * (jnp.log(self.alpha(t)) - jnp.log(self.sigma(t)))

    def half_log_snr(self, t: Float[Array, "*s"]) -> Float[Array, "*s"]:
        """lambda = log(alpha / sigma), in which fast solvers step; kept in a range, so finite."""
        return jnp.clip(0.5 * self.log_snr(t), LEAST_LAMBDA, GREATEST_LAMBDA)

    def time_of(self, half_log_snr: Float[Array, "*s"]) -> Float[Array, "*s"]:
        """The time t at which log(alpha / sigma) has the given value: inverse of `half_log_snr`.

        By bisection, so that it holds for every schedule whose log-SNR falls with t.
        """

        def halve(_, bounds):
            low, high = bounds
            middle = 0.5 * (low + high)
            too_clean = self.half_log_snr(middle) > half_log_snr
            return jnp.where(too_clean, middle, low), jnp.where(too_clean, high, middle)

        bounds = (jnp.zeros_like(half_log_snr), jnp.ones_like(half_log_snr))
        low, high = jax.lax.fori_loop(0, _BISECTIONS, halve, bounds)
        return jnp.where(half_log_snr <= self.half_log_snr(jnp.ones_like(low)), 1.0, high)

    def alpha_rate(self, t: Float[Array, "*s"]) -> Float[Array, "*s"]:
        """alpha'(t), the derivative by time."""
        return jax.jvp(self.alpha, (t,), (jnp.ones_like(t),))[1]

    def sigma_rate(self, t: Float[Array, "*s"]) -> Float[Array, "*s"]:
        """sigma'(t), the derivative by time."""
        return jax.jvp(self.sigma, (t,), (jnp.ones_like(t),))[1]

    def drift(self, t: Float[Array, "*s"]) -> Float[Array, "*s"]:
        """f(t) = alpha'/alpha of the SDE dx = f·x dt + g dW; infinite where alpha is 0."""
        return self.alpha_rate(t) / self.alpha(t)

    def diffusion_squared(self, t: Float[Array, "*s"]) -> Float[Array, "*s"]:
        """g(t)² = 2·sigma·(sigma' − sigma·alpha'/alpha) of the SDE dx = f·x dt + g dW."""
        sigma = self.sigma(t)
        return 2.0 * sigma * (self.sigma_rate(t) - sigma * self.drift(t))

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
        snapped = jnp.where(jnp.abs(real - nearest) <= rounding, nearest, real)
        # Rounding moves the value, not the slope.
        return real + jax.lax.stop_gradient(snapped - real)

    def perturb(self, x0: Batch, t: Time, noise: Batch) -> Batch:
        """x_t = alpha(t)·x0 + sigma(t)·noise (Ho et al. 2020, eq. 4)."""
        return like(self.alpha(t), x0) * x0 + like(self.sigma(t), x0) * noise


def like(coefficient: Time, x: Batch) -> Float[Array, "..."]:
    """Give a number per example (or one for all) the axes it needs to multiply `x`."""
    return coefficient.reshape(coefficient.shape + (1,) * (x.ndim - coefficient.ndim))
