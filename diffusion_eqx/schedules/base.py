"""What a schedule is: alpha(t) and sigma(t), and all that follows from them.

A clean example x0 becomes x = alpha(t)·x0 + sigma(t)·eps with eps ~ N(0, I). Time runs from 0,
clean, to 1, the most noise. Everything else is derived here, once. x is also the solution at t of
the linear SDE dx = f(t)·x dt + g(t) dW from x0 (Kingma et al. 2021, section 3; Song et al. 2021,
appendix B):

    log_snr(t)   = log(alpha² / sigma²)
    drift f(t)   = alpha' / alpha
    diffusion g² = (sigma²)' − 2·f·sigma² = −sigma²·log_snr'

The contract of every schedule: alpha(0) = 1, sigma(0) = 0, alpha >= 0, and a log-SNR that falls strictly. A
schedule checks it when it is made of known numbers.

Discrete timesteps 0 … T−1, in which networks are trained, are the times t = (timestep + 1)/T. The
first of them, 1/T, is the least noise that a network has learnt to remove.
"""

from abc import abstractmethod
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float

from diffusion_eqx._values import AbstractValue, as_arrays, is_traced
from diffusion_eqx.schedules.level import (
    GREATEST_LOG_SNR,
    LEAST_LOG_SNR,
    NoiseLevel,
    safe_log,
    safe_sqrt,
)

# Times at which the contract is checked, and how far alpha(0), sigma(0) may be off by rounding.
_CHECKED = 65
_ROUNDING = 1e-4


class AbstractSchedule(AbstractValue):
    """alpha(t) and sigma(t) for t in [0, 1]. A schedule of your own defines just these two.

    It may also define `log_snr` and its inverse, `time_of_log_snr`, where these have a closed form:
    then they are faster and keep more digits than what is derived here.

    - `num_timesteps`: T, how finely [0, 1] is divided where integer timesteps are spoken of.
    - `discrete`: whether the schedule is a table of timesteps, so that networks are trained at these only.

    **Raises:** `ValueError` if the schedule breaks the contract of the module.
    """

    discrete: ClassVar[bool] = False
    num_timesteps: int = eqx.field(static=True, default=1000, kw_only=True)

    def __check_init__(self):
        if not 1 <= self.num_timesteps < 2**24:
            raise ValueError(
                f"num_timesteps must be between 1 and {2**24 - 1}; got {self.num_timesteps}"
            )
        check_contract(self)

    @abstractmethod
    def alpha(self, t: Float[Array, "*s"]) -> Float[Array, "*s"]:
        """Scale of the signal at time t."""

    @abstractmethod
    def sigma(self, t: Float[Array, "*s"]) -> Float[Array, "*s"]:
        """Standard deviation of the noise at time t."""

    def log_snr(self, t: Float[Array, "*s"]) -> Float[Array, "*s"]:
        """log(alpha²/sigma²) at time t. Levels keep it within [−34, 80]."""
        return 2.0 * (safe_log(self.alpha(t)) - safe_log(self.sigma(t)))

    def time_of_log_snr(self, log_snr: Float[Array, "*s"]) -> Float[Array, "*s"]:
        """The time at which the log-SNR has a given value: the inverse of `log_snr`.

        By bisection and one step of Newton's method, so that it holds for every schedule, and its
        derivative is that of the inverse function.
        """
        bisections = 60 if log_snr.dtype == jnp.float64 else 30

        def halve(_, bounds):
            low, high = bounds
            middle = 0.5 * (low + high)
            too_clean = self._bounded_log_snr(middle) > log_snr
            return jnp.where(too_clean, middle, low), jnp.where(too_clean, high, middle)

        bounds = (jnp.zeros_like(log_snr), jnp.ones_like(log_snr))
        low, high = jax.lax.fori_loop(0, bisections, halve, bounds)
        time = jax.lax.stop_gradient(0.5 * (low + high))
        found, slope = jax.jvp(self._bounded_log_snr, (time,), (jnp.ones_like(time),))
        slope = jax.lax.stop_gradient(jnp.where(slope < 0.0, slope, -jnp.inf))
        return jnp.clip(time + (log_snr - found) / slope, 0.0, 1.0)

    def pair_of_log_snr(
        self, log_snr: Float[Array, "*s"], time: Float[Array, "*s"]
    ) -> tuple[Float[Array, "*s"], Float[Array, "*s"]]:
        """(alpha, sigma) at a log-SNR, whose time is `time`.

        Their ratio follows from the log-SNR, since the time has fewer digits. Their size,
        sqrt(alpha² + sigma²), is that at the time.
        """
        size = jnp.sqrt(self.alpha(time) ** 2 + self.sigma(time) ** 2)
        alpha, sigma = unit_pair(log_snr)
        return size * alpha, size * sigma

    def at(self, time: Any) -> NoiseLevel:
        """The level at a time in [0, 1], or the levels at an array of times.

        **Raises:** `ValueError` for integers, which are timesteps (`at_timestep`), and for known
        times outside [0, 1].
        """
        t = _as_time(time)
        # Where nothing is left of the noise, a square root in sigma has no slope; so it is not asked there.
        noisy = t > 0.0
        inside = jnp.where(noisy, t, 0.5)
        return NoiseLevel(
            t,
            jnp.where(noisy, jnp.maximum(self.alpha(inside), 0.0), 1.0),
            jnp.where(noisy, self.sigma(inside), 0.0),
            jnp.where(noisy, self._bounded_log_snr(inside), GREATEST_LOG_SNR),
        )

    def at_timestep(self, timestep: Any) -> NoiseLevel:
        """The level at an integer timestep 0 … T−1, or the levels at an array of them.

        **Raises:** `ValueError` for floats, and for known timesteps outside 0 … T−1.
        """
        k = jnp.asarray(timestep)
        if not jnp.issubdtype(k.dtype, jnp.integer):
            raise ValueError(
                f"a timestep is an integer in 0 … {self.num_timesteps - 1}; got {timestep}. For a time in "
                "[0, 1] ask the schedule for its level, schedule.at(time), and denoiser(x, level)"
            )
        _refuse_outside(k, 0, self.num_timesteps - 1, "timestep")
        return self.at((k.astype(float) + 1.0) / self.num_timesteps)

    def at_log_snr(self, log_snr: Float[Array, "*s"] | float) -> NoiseLevel:
        """The level of a given log-SNR; the nearest end of the schedule if it lies outside.

        alpha and sigma come from the log-SNR itself. The time is a label, found by `time_of_log_snr`.
        """
        wanted = jnp.asarray(log_snr, float)
        end = self.at(jnp.ones((), wanted.dtype))
        inside = jnp.clip(wanted, end.log_snr, GREATEST_LOG_SNR)
        time = self.time_of_log_snr(inside)
        level = NoiseLevel(time, *self.pair_of_log_snr(inside, time), inside)
        level = level.where(wanted > end.log_snr, end)
        return level.where(wanted < GREATEST_LOG_SNR, self.at(jnp.zeros((), wanted.dtype)))

    def at_ratio(self, ratio: Float[Array, "*s"] | float) -> NoiseLevel:
        """The level at which sigma/alpha, the noise relative to the signal, has a given value."""
        return self.at_log_snr(-2.0 * safe_log(jnp.asarray(ratio, float)))

    def timestep_of(self, level: NoiseLevel) -> Float[Array, "..."]:
        """The real-valued timestep t·T − 1 of a level, which networks are told.

        Times that came from integers give those integers exactly: a difference of float32's
        rounding would be magnified by the high frequencies of a time embedding.
        """
        real = level.time * self.num_timesteps - 1.0
        nearest = jnp.round(real)
        rounding = self.num_timesteps * 2.0**-21
        snapped = jnp.where(jnp.abs(real - nearest) <= rounding, nearest, real)
        # Rounding moves the value, not the slope.
        return real + jax.lax.stop_gradient(snapped - real)

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

    def _bounded_log_snr(self, t: Float[Array, "*s"]) -> Float[Array, "*s"]:
        return jnp.clip(self.log_snr(t), LEAST_LOG_SNR, GREATEST_LOG_SNR)


def unit_pair(
    log_snr: Float[Array, "*s"],
) -> tuple[Float[Array, "*s"], Float[Array, "*s"]]:
    """(alpha, sigma) with alpha² + sigma² = 1 at a log-SNR."""
    return safe_sqrt(jax.nn.sigmoid(log_snr)), safe_sqrt(jax.nn.sigmoid(-log_snr))


# One program for each kind of schedule, whatever its numbers: operation by operation it is 50, which a
# start waits for. The times are an argument, since jax computes at once what depends on constants alone.
@eqx.filter_jit
def _checked(
    schedule: AbstractSchedule, t: Float[Array, " times"]
) -> tuple[Float[Array, " times"], Float[Array, " times"], Float[Array, " later"]]:
    return schedule.alpha(t), schedule.sigma(t), schedule.log_snr(t[1:])


def check_contract(schedule: AbstractSchedule) -> None:
    """**Raises:** `ValueError` naming what is broken of the contract of schedules, if all numbers
    are known.
    """
    if is_traced(schedule):
        return
    with jax.ensure_compile_time_eval():
        t = np.linspace(0.0, 1.0, _CHECKED)
        alpha, sigma, log_snr = map(
            np.asarray, _checked(as_arrays(schedule), jnp.asarray(t, float))
        )
    name = type(schedule).__name__
    # NaN fails each of these comparisons, so they are written as what must hold.
    if not (abs(alpha[0] - 1.0) <= _ROUNDING and abs(sigma[0]) <= _ROUNDING):
        raise ValueError(
            f"{name} must begin clean: alpha(0) = 1 and sigma(0) = 0, so that the last step "
            "returns x0; got "
            f"alpha(0) = {alpha[0]:.4g} and sigma(0) = {sigma[0]:.4g}. Let both run to these "
            "values at t = 0"
        )
    if not (np.all(alpha >= -1e-6) and np.all(sigma >= 0.0)):
        raise ValueError(
            f"{name} must have alpha >= 0 and sigma >= 0 at every time; got alpha as low as "
            f"{alpha.min():.4g} and sigma as low as {sigma.min():.4g}"
        )
    inside = np.clip(log_snr, LEAST_LOG_SNR, GREATEST_LOG_SNR)
    falls = np.diff(inside) < 0.0
    outside = (log_snr[1:] <= LEAST_LOG_SNR) | (log_snr[:-1] >= GREATEST_LOG_SNR)
    if not np.all(falls | outside):
        where = float(t[1:][np.argmin(falls | outside)])
        raise ValueError(
            f"{name} must have a log-SNR that falls strictly from t = 0 to t = 1; near t = "
            f"{where:.3f} it does "
            "not. Check that alpha falls and sigma grows there, each as a formula without cancellation"
        )


def _as_time(time: Any) -> Float[Array, "..."]:
    value = jnp.asarray(time)
    if not jnp.issubdtype(value.dtype, jnp.floating):
        raise ValueError(
            f"a time is a real number in [0, 1]; got {time}, of type {value.dtype}. For an "
            "integer timestep use "
            "`schedule.at_timestep`"
        )
    _refuse_outside(value, 0.0, 1.0, "time")
    # Half precision has too few digits for a time.
    return value.astype(jnp.float32) if value.dtype.itemsize < 4 else value


def _refuse_outside(value: Array, low: float | int, high: float | int, what: str) -> None:
    if isinstance(value, Tracer):
        return
    known = np.asarray(value)
    if known.size and not (known.min() >= low and known.max() <= high):
        raise ValueError(
            f"a {what} lies in [{low}, {high}]; got values in [{known.min()}, {known.max()}]"
        )
