"""Grids: at which levels a sampler stops on its way from noise to image.

A grid is a pure function of the step's index and the number of steps, so that both may be chosen at
run time, in an exported program too, and differ from image to image. Index 0 is the start; index
`steps` is the end, the clean level.

Grids in sigma run over s = sigma/alpha, from its largest value, at t = 1, to its value at the first
timestep, the least noise that a network has learnt, and then to 0.
"""

import math
from abc import abstractmethod
from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from diffusion_eqx._typing import Real
from diffusion_eqx._values import AbstractValue, as_real, real
from diffusion_eqx.schedules import AbstractSchedule, NoiseLevel

Index = Int[Array, "..."]

# Where a schedule has no signal at t = 1, sigma/alpha has no largest value; a grid in sigma then
# goes from t = 1 to this.
_LARGEST_SIGMA = 500.0
# Up to here 2·T·steps fits into 32 bits, so that rounding can be exact.
_MOST_EXACT = 32_000


class AbstractGrid(AbstractValue):
    """Gives the noise level at each index 0 … steps; a grid of your own defines just the call."""

    @abstractmethod
    def __call__(self, schedule: AbstractSchedule, index: Index, steps: Index) -> NoiseLevel:
        """The level at `index`, ever cleaner; at `index == steps`, the clean one.

        `index` and `steps` are integer arrays, which broadcast: an `arange` of indices gives a
        whole table, and one index for each image a level for each.
        """

    def check(self, schedule: AbstractSchedule, steps: int) -> None:
        """**Raises:** `ValueError` if the grid has not so many steps on this schedule."""
        if steps < 1:
            raise ValueError(f"steps must be at least 1; got {steps}")


class AbstractTimestepGrid(AbstractGrid):
    """A grid of integer timesteps, of which a schedule has num_timesteps."""

    @abstractmethod
    def timestep(self, total: int, index: Index, steps: Index) -> Index:
        """The timestep 0 … total − 1 at `index` < steps."""

    def check(self, schedule: AbstractSchedule, steps: int) -> None:
        """**Raises:** `ValueError` unless 1 <= steps <= num_timesteps."""
        if not 1 <= steps <= schedule.num_timesteps:
            raise ValueError(
                f"steps must be between 1 and the {schedule.num_timesteps} timesteps; got {steps}"
            )

    def __call__(self, schedule: AbstractSchedule, index: Index, steps: Index) -> NoiseLevel:
        """The level of the timestep at `index`."""
        total = schedule.num_timesteps
        node = self.timestep(total, index, steps).astype(float) + 1.0
        return schedule.at(jnp.where(index < steps, node / total, 0.0))


class UniformGrid(AbstractGrid):
    """Equal spacing in time: t = 1 − index/steps."""

    def __call__(self, schedule: AbstractSchedule, index: Index, steps: Index) -> NoiseLevel:
        """The level at that time."""
        return schedule.at((steps - index).astype(float) / steps.astype(float))


class TrailingGrid(AbstractTimestepGrid):
    """Equal spacing over the integer timesteps, from the last one (Lin et al. 2024, table 2).

    timestep + 1 = T·(steps − index)/steps, rounded, halves upwards. diffusers rounds halves to
    even, so that a few timesteps differ by one.
    """

    def timestep(self, total: int, index: Index, steps: Index) -> Index:
        """The rounded timestep."""
        return _rounded(total, steps - index, steps) - 1


class LeadingGrid(AbstractTimestepGrid):
    """Multiples of T // steps, from 0 upwards, traversed downwards (Ho et al. 2020; DDIM's default).

    timestep = (steps − 1 − index)·(T // steps). The start is below t = 1 unless steps = T, although
    the network sees pure noise of the level's sigma there: `TrailingGrid` is the sounder choice for
    few steps.
    """

    def timestep(self, total: int, index: Index, steps: Index) -> Index:
        """The multiple at `index`."""
        return (steps - 1 - index) * (total // steps)


class LinspaceGrid(AbstractTimestepGrid):
    """Equal spacing over the integer timesteps with both ends (Nichol & Dhariwal 2021, section 4).

    timestep = (T − 1)·(steps − 1 − index)/(steps − 1), rounded, halves upwards. The last step
    begins at timestep 0, where next to nothing is left to do. diffusers cuts off instead of
    rounding.
    """

    def timestep(self, total: int, index: Index, steps: Index) -> Index:
        """The rounded timestep; a single step begins at the last one."""
        left = jnp.where(steps > 1, steps - 1 - index, 1 - index)
        return _rounded(total - 1, left, jnp.maximum(steps - 1, 1))


class AbstractSigmaGrid(AbstractGrid):
    """A grid that is even in some function of s = sigma/alpha."""

    @abstractmethod
    def log_sigma(
        self, ends: tuple[Float[Array, ""], Float[Array, ""]], progress: Float[Array, "..."]
    ) -> Float[Array, "..."]:
        """log s at `progress` from 0 to 1; `ends` are log s at both."""

    @abstractmethod
    def limits(self) -> tuple[Any, Any]:
        """The s to begin at and the last before 0, each None for the schedule's own."""

    def __call__(self, schedule: AbstractSchedule, index: Index, steps: Index) -> NoiseLevel:
        """The level at `index`.

        At the start that of t = 1, unless the grid begins elsewhere; clean at the end.
        """
        sigma_max, sigma_min = self.limits()
        highest, lowest = schedule.at(1.0), schedule.at(1.0 / schedule.num_timesteps)
        high = jnp.where(highest.alpha > 0.0, -highest.lam, math.log(_LARGEST_SIGMA))
        low = -lowest.lam
        # Beyond the schedule's own end all levels would be one, and the steps between them of no length.
        if sigma_max is not None:
            high = jnp.minimum(high, jnp.log(jnp.asarray(sigma_max, high.dtype)))
        if sigma_min is not None:
            low = jnp.log(jnp.asarray(sigma_min, low.dtype))
        progress = index.astype(float) / jnp.maximum(steps - 1, 1).astype(float)
        level = schedule.at_log_snr(-2.0 * self.log_sigma((high, low), progress))
        if sigma_max is None:
            level = level.where(index > 0, highest)
        return level.where(index < steps, schedule.at(0.0))


def _limit() -> Any:
    return eqx.field(default=None, converter=as_real)


class KarrasGrid(AbstractSigmaGrid):
    """Equal spacing in s^(1/rho), s = sigma/alpha (Karras et al. 2022, eq. 5).

    - `sigma_max`, `sigma_min`: the first s and the last before 0, if not those of the schedule.

    **Raises:** `ValueError` unless 0 < sigma_min < sigma_max.
    """

    rho: Real = real(7.0)
    sigma_max: Real | None = _limit()
    sigma_min: Real | None = _limit()

    def __check_init__(self):
        _check_limits(self)

    def limits(self) -> tuple[Any, Any]:
        """`sigma_max` and `sigma_min`."""
        return self.sigma_max, self.sigma_min

    def log_sigma(self, ends, progress):
        """Linear between both ends of s^(1/rho)."""
        high, low = (jnp.exp(end / self.rho) for end in ends)
        return self.rho * jnp.log(high + progress * (low - high))


class LogSNRGrid(AbstractSigmaGrid):
    """Equal spacing in the log-SNR, that is, in log s (Lu et al. 2022); also known as exponential.

    - `sigma_max`, `sigma_min`: as in `KarrasGrid`.

    **Raises:** `ValueError` unless 0 < sigma_min < sigma_max.
    """

    sigma_max: Real | None = _limit()
    sigma_min: Real | None = _limit()

    def __check_init__(self):
        _check_limits(self)

    def limits(self) -> tuple[Any, Any]:
        """`sigma_max` and `sigma_min`."""
        return self.sigma_max, self.sigma_min

    def log_sigma(self, ends, progress):
        """Linear between both ends."""
        high, low = ends
        return high + progress * (low - high)


class FocusedGrid(AbstractSigmaGrid):
    """Equal spacing in asinh((lambda − center)/width), lambda = log(alpha/sigma) = −log s.

    Like `LogSNRGrid` near `center`, where most of an image is decided, and ever longer steps far
    from it: above, where only noise is left to remove, and below, where all is noise. The default
    center is where noise is about as large as the spread of data in [−1, 1]. Meant for few steps;
    ours, found with the exact denoiser of a mixture (`benchmarks/solver_accuracy.py`).
    """

    center: Real = real(1.0)
    width: Real = real(2.0)

    def limits(self) -> tuple[Any, Any]:
        """Those of the schedule."""
        return None, None

    def log_sigma(self, ends, progress):
        """Linear between both ends of the inverse hyperbolic sine."""
        begin, end = (jnp.arcsinh((-log_s - self.center) / self.width) for log_s in ends)
        return -(self.center + self.width * jnp.sinh(begin + progress * (end - begin)))


class GivenGrid(AbstractGrid):
    """Times given one by one: `times[0]` … `times[steps]`, decreasing.

    The last may be above 0: sampling then ends with noisy examples.

    **Raises:** `ValueError` if they do not decrease within [0, 1], or are used for another number of steps.
    """

    times: tuple[Real, ...] = eqx.field(converter=lambda times: tuple(as_real(t) for t in times))

    def __check_init__(self):
        if len(self.times) < 2:
            raise ValueError(f"a grid needs at least two times; got {len(self.times)}")
        if not all(isinstance(t, float) for t in self.times):
            return
        falls = all(b < a for a, b in zip(self.times, self.times[1:], strict=False))
        if not (falls and self.times[0] <= 1.0 and self.times[-1] >= 0.0):
            raise ValueError(f"times must decrease from at most 1 to at least 0; got {self.times}")

    def check(self, schedule: AbstractSchedule, steps: int) -> None:
        """**Raises:** `ValueError` unless there is one time more than steps."""
        if steps != len(self.times) - 1:
            raise ValueError(
                f"the given grid has {len(self.times) - 1} steps, but {steps} are asked for"
            )

    def __call__(self, schedule: AbstractSchedule, index: Index, steps: Index) -> NoiseLevel:
        """The level at the time given for `index`."""
        times = jnp.stack([jnp.asarray(t, float) for t in self.times])
        return schedule.at(times[index])


def _check_limits(grid: KarrasGrid | LogSNRGrid) -> None:
    high = grid.sigma_max if isinstance(grid.sigma_max, float) else math.inf
    low = grid.sigma_min if isinstance(grid.sigma_min, float) else math.ulp(0.0)
    if not 0.0 < low < high:
        raise ValueError(
            f"a grid needs 0 < sigma_min < sigma_max; got {grid.sigma_min} and {grid.sigma_max}"
        )


def _rounded(total: int, part: Index, whole: Index) -> Index:
    """total·part/whole, rounded, halves upwards."""
    if total <= _MOST_EXACT:
        return (2 * total * part + whole) // (2 * whole)
    share = part.astype(float) / whole.astype(float)
    return jnp.floor(total * share + 0.5).astype(jnp.int32)
