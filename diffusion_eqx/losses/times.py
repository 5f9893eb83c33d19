"""Which noise levels are trained, and how often.

A distribution of times is its inverse cumulative distribution function, applied to uniform numbers that are
spread evenly over a batch (`Draws.uniforms`). It is cut to the times that the schedule trains: nothing is
moved to an end, so that no level is trained more often than the density says.
"""

from abc import abstractmethod

import jax
import jax.numpy as jnp
from jax.scipy.special import ndtr, ndtri
from jaxtyping import Array, Float

from diffusion_eqx._typing import Real
from diffusion_eqx._values import AbstractValue, number, real
from diffusion_eqx.schedules import AbstractSchedule, NoiseLevel

# So many halvings find a quantile to float32's precision.
_HALVINGS = 26

Times = Float[Array, " batch"]


class AbstractTimes(AbstractValue):
    """A distribution of training times. One of your own defines `quantile` and `cdf`, its inverse.

    In continuous time all times from 1/T to 1 are trained. Of a `DiscreteSchedule`, and where the variance
    of steps is learnt, the timesteps 0 … T−1: the first one at or after each quantile.
    """

    @abstractmethod
    def quantile(self, schedule: AbstractSchedule, u: Times) -> Times:
        """The time t, up to which a share u of all levels lies; it rises with u in (0, 1)."""

    @abstractmethod
    def cdf(self, schedule: AbstractSchedule, t: Times) -> Times:
        """The share of levels up to a time t in [0, 1]: the inverse of `quantile`."""

    def __call__(
        self, schedule: AbstractSchedule, uniforms: Times, *, discrete: bool | None = None
    ) -> NoiseLevel:
        """The levels, (batch,), of uniform numbers in (0, 1).

        - `discrete`: whether only timesteps are trained; None: as the schedule is.
        """
        if _is_discrete(schedule, discrete):
            total = schedule.num_timesteps
            time = self.cut(schedule, uniforms, discrete=True)
            timestep = jnp.ceil(time * total).astype(jnp.int32) - 1
            return schedule.at_timestep(jnp.clip(timestep, 0, total - 1))
        return schedule.at(self.cut(schedule, uniforms, discrete=False))

    def cut(self, schedule: AbstractSchedule, uniforms: Times, *, discrete: bool) -> Times:
        """The quantiles of the part of the distribution that lies between the first time trained and 1."""
        first, last = self._ends(schedule, discrete, uniforms)
        time = self.quantile(schedule, first + uniforms * (last - first))
        return jnp.clip(time, 0.0 if discrete else 1.0 / schedule.num_timesteps, 1.0)

    def share(self, schedule: AbstractSchedule, level: NoiseLevel) -> Times:
        """The share of all examples that are trained at the timestep of each level."""
        step = 1.0 / schedule.num_timesteps
        first, last = self._ends(schedule, True, level.time)
        below = jnp.clip(level.time - step, 0.0, 1.0)
        return (self.cdf(schedule, level.time) - self.cdf(schedule, below)) / (last - first)

    def log_snr_span(
        self, schedule: AbstractSchedule, uniforms: Times, *, discrete: bool | None = None
    ) -> Times:
        """1/p(log-SNR), p being the density of the log-SNR of the levels trained: its slope by u."""
        discrete = _is_discrete(schedule, discrete)

        def log_snr(u: Times) -> Times:
            return schedule.at(self.cut(schedule, u, discrete=discrete)).log_snr

        return jnp.abs(jax.jvp(log_snr, (uniforms,), (jnp.ones_like(uniforms),))[1])

    def _ends(
        self, schedule: AbstractSchedule, discrete: bool, like: Times
    ) -> tuple[Float[Array, ""], Float[Array, ""]]:
        first = 0.0 if discrete else 1.0 / schedule.num_timesteps
        low, high = (jnp.full((1,), end, like.dtype) for end in (first, 1.0))
        return self.cdf(schedule, low)[0], self.cdf(schedule, high)[0]


class UniformTimes(AbstractTimes):
    """Every time as often as any other (Ho et al. 2020, algorithm 1)."""

    def quantile(self, schedule: AbstractSchedule, u: Times) -> Times:
        """u."""
        return u

    def cdf(self, schedule: AbstractSchedule, t: Times) -> Times:
        """t."""
        return t


class LogitNormalTimes(AbstractTimes):
    """t = sigmoid(mean + std·z) with z ~ N(0, 1) (Esser et al. 2024, section 3.1).

    It is meant for `FlowSchedule`, where it equals `LogNormalTimes(mean, std)`.
    """

    mean: Real = real(0.0)
    std: Real = number(1.0, minimum=1e-3, maximum=100.0, about="Spread of the logit of time.")

    def quantile(self, schedule: AbstractSchedule, u: Times) -> Times:
        """sigmoid(mean + std·Φ⁻¹(u))."""
        return jax.nn.sigmoid(self.mean + self.std * ndtri(u))

    def cdf(self, schedule: AbstractSchedule, t: Times) -> Times:
        """Φ((logit t − mean)/std)."""
        return ndtr((jnp.log(t) - jnp.log1p(-t) - self.mean) / self.std)


class ModeTimes(AbstractTimes):
    """t = u − scale·(sin²(πu/2) − u): heavy tails, and a mode in the middle (Esser et al. 2024, eq. 20).

    `scale`: 0 is uniform; from −1, with a dip in the middle, to 2/(π − 2).
    """

    scale: Real = number(1.29, minimum=-1.0, maximum=1.75, about="Height of the mode; 0: uniform.")

    def quantile(self, schedule: AbstractSchedule, u: Times) -> Times:
        """The formula of the class."""
        return u - self.scale * (jnp.sin(0.5 * jnp.pi * u) ** 2 - u)

    def cdf(self, schedule: AbstractSchedule, t: Times) -> Times:
        """By bisection, exact at both ends."""

        def halve(_, bounds: tuple[Times, Times]) -> tuple[Times, Times]:
            low, high = bounds
            middle = 0.5 * (low + high)
            below = self.quantile(schedule, middle) < t
            return jnp.where(below, middle, low), jnp.where(below, high, middle)

        low, high = jax.lax.fori_loop(0, _HALVINGS, halve, (jnp.zeros_like(t), jnp.ones_like(t)))
        return jnp.where(t <= 0.0, 0.0, jnp.where(t >= 1.0, 1.0, 0.5 * (low + high)))


class LogNormalTimes(AbstractTimes):
    """log s ~ N(mean, std²) for s = sigma/alpha (Karras et al. 2022, table 1)."""

    mean: Real = real(-1.2)
    std: Real = number(1.2, minimum=1e-3, maximum=100.0, about="Spread of log(sigma/alpha).")

    def quantile(self, schedule: AbstractSchedule, u: Times) -> Times:
        """The time at which log s is mean + std·Φ⁻¹(u)."""
        return _time_of_ratio(schedule, self.mean + self.std * ndtri(u))

    def cdf(self, schedule: AbstractSchedule, t: Times) -> Times:
        """Φ((log s − mean)/std)."""
        return ndtr((_log_ratio(schedule, t) - self.mean) / self.std)


class CosineTimes(AbstractTimes):
    """s = tan(πu/2) for s = sigma/alpha: the levels of the cosine schedule, for any schedule.

    The density of the log-SNR is sech(log_snr/2)/(2π) (Kingma & Gao 2023, table 2).
    """

    def quantile(self, schedule: AbstractSchedule, u: Times) -> Times:
        """The time at which s is tan(πu/2)."""
        return _time_of_ratio(schedule, jnp.log(jnp.tan(0.5 * jnp.pi * u)))

    def cdf(self, schedule: AbstractSchedule, t: Times) -> Times:
        """2·arctan(s)/π."""
        return jnp.arctan(jnp.exp(_log_ratio(schedule, t))) * (2.0 / jnp.pi)


class ShiftedTimes(AbstractTimes):
    """Times of `base` moved to more noise: s becomes shift·s, for s = sigma/alpha.

    On `FlowSchedule` this is t' = shift·t/(1 + (shift − 1)·t). An image of n pixels needs a shift of about
    sqrt(n/n₀) to be as noisy as one of n₀ pixels (Esser et al. 2024, section 5.3.2).
    """

    base: AbstractTimes = UniformTimes()
    shift: Real = number(
        1.0, minimum=1e-3, maximum=1e3, neutral=1.0, about="Factor of sigma/alpha."
    )

    def quantile(self, schedule: AbstractSchedule, u: Times) -> Times:
        """The time at which s is `shift` times that of the base's quantile."""
        time = self.base.quantile(schedule, u)
        return _time_of_ratio(schedule, _log_ratio(schedule, time) + jnp.log(self.shift))

    def cdf(self, schedule: AbstractSchedule, t: Times) -> Times:
        """The base's share at the time at which s is 1/`shift` of that at t."""
        moved = _time_of_ratio(schedule, _log_ratio(schedule, t) - jnp.log(self.shift))
        return self.base.cdf(schedule, moved)


def _log_ratio(schedule: AbstractSchedule, t: Times) -> Times:
    """log(sigma/alpha) at times."""
    return -schedule.at(t).lam


def _time_of_ratio(schedule: AbstractSchedule, log_ratio: Times) -> Times:
    """The time of a log(sigma/alpha), the nearest end of the schedule if it lies outside."""
    return schedule.at_log_snr(-2.0 * log_ratio).time


def _is_discrete(schedule: AbstractSchedule, discrete: bool | None) -> bool:
    return schedule.discrete if discrete is None else discrete
