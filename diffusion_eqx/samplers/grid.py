"""Grids: at which times a sampler stops on its way from noise to image.

A grid is a pure function of (step index, number of steps), so that the number of steps may be chosen
at run time, in an exported program too. Index 0 is the start; index `steps` is the end, t = 0.

Grids in sigma run over s = sigma/alpha, from its largest value, at t = 1, to its value at the first
timestep, the least noise that a network has learnt, and then to 0.
"""

from abc import abstractmethod

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from diffusion_eqx.schedules import AbstractSchedule

Index = int | Int[Array, ""]

# Where a schedule has no signal at t = 1, sigma/alpha has no largest value; a grid in sigma then goes
# from t = 1 to this.
_LARGEST_SIGMA = 500.0


class AbstractGrid(eqx.Module):
    """Gives the time t at each index 0 … steps."""

    @abstractmethod
    def __call__(self, schedule: AbstractSchedule, index: Index, steps: Index) -> Float[Array, ""]:
        """The time at `index`, decreasing in it; 0 at `index == steps`."""


class UniformGrid(AbstractGrid):
    """Equal spacing in time: t = 1 − index/steps."""

    def __call__(self, schedule: AbstractSchedule, index: Index, steps: Index) -> Float[Array, ""]:
        """See the class."""
        return (jnp.asarray(steps - index)).astype(jnp.float32) / steps


class TrailingGrid(AbstractGrid):
    """Equal spacing over the integer timesteps, from the last one (Lin et al. 2024, table 2).

    timestep + 1 = T·(steps − index)/steps, rounded (halves upwards).
    """

    def __call__(self, schedule: AbstractSchedule, index: Index, steps: Index) -> Float[Array, ""]:
        """See the class."""
        total = schedule.num_timesteps
        node = jnp.asarray((2 * total * (steps - index) + steps) // (2 * steps))
        return node.astype(jnp.float32) / total


class LeadingGrid(AbstractGrid):
    """Multiples of T // steps, from 0 upwards, traversed downwards (Ho et al. 2020; DDIM's default).

    timestep = (steps − 1 − index)·(T // steps). The start is below t = 1 unless steps = T, although
    sampling starts from pure noise there: `TrailingGrid` is the sounder choice for few steps.
    """

    def __call__(self, schedule: AbstractSchedule, index: Index, steps: Index) -> Float[Array, ""]:
        """See the class."""
        total = schedule.num_timesteps
        node = (steps - 1 - index) * (total // steps) + 1
        return jnp.where(index < steps, jnp.asarray(node).astype(jnp.float32) / total, 0.0)


class LinspaceGrid(AbstractGrid):
    """Equal spacing over the integer timesteps with both ends (Nichol & Dhariwal 2021, section 4).

    timestep = (T − 1)·(steps − 1 − index)/(steps − 1), rounded (halves upwards). The last step begins at
    timestep 0, where next to nothing is left to do.
    """

    def __call__(self, schedule: AbstractSchedule, index: Index, steps: Index) -> Float[Array, ""]:
        """See the class."""
        intervals = jnp.maximum(steps - 1, 1)
        # A single step begins at the end.
        left = jnp.where(steps > 1, steps - 1 - index, 1 - index)
        total = schedule.num_timesteps
        timestep = (2 * (total - 1) * left + intervals) // (2 * intervals)
        return jnp.where(index < steps, (timestep + 1).astype(jnp.float32) / total, 0.0)


class KarrasGrid(AbstractGrid):
    """Equal spacing in s^(1/rho), s = sigma/alpha (Karras et al. 2022, eq. 5).

    `sigma_max`, `sigma_min`: the first s and the last before 0, if not those of the schedule.
    """

    rho: float = eqx.field(static=True, default=7.0)
    sigma_max: float | None = eqx.field(static=True, default=None)
    sigma_min: float | None = eqx.field(static=True, default=None)

    def __call__(self, schedule: AbstractSchedule, index: Index, steps: Index) -> Float[Array, ""]:
        """See the class."""
        high, low = _ends(schedule, self.sigma_max, self.sigma_min)
        high, low = jnp.exp(jnp.stack([high, low]) / self.rho)
        level = high + _progress(index, steps) * (low - high)
        whole = self.sigma_max is None
        return _time_of_sigma(schedule, self.rho * jnp.log(level), index, steps, whole)


class LogSNRGrid(AbstractGrid):
    """Equal spacing in the log-SNR, that is, in log s (Lu et al. 2022); also known as exponential.

    `sigma_max`, `sigma_min` as in `KarrasGrid`.
    """

    sigma_max: float | None = eqx.field(static=True, default=None)
    sigma_min: float | None = eqx.field(static=True, default=None)

    def __call__(self, schedule: AbstractSchedule, index: Index, steps: Index) -> Float[Array, ""]:
        """See the class."""
        high, low = _ends(schedule, self.sigma_max, self.sigma_min)
        log_sigma = high + _progress(index, steps) * (low - high)
        return _time_of_sigma(schedule, log_sigma, index, steps, self.sigma_max is None)


class FocusedGrid(AbstractGrid):
    """Equal spacing in asinh((lambda − center)/width), lambda = log(alpha/sigma) = −log s.

    Like `LogSNRGrid` near `center`, where most of an image is decided, and ever longer steps far from it:
    above, where only noise is left to remove, and below, where all is noise. The default center is where
    noise is about as large as the spread of data in [−1, 1]. Meant for few steps; ours, found with the
    exact denoiser of a mixture (`benchmarks/solver_accuracy.py`).
    """

    center: float = eqx.field(static=True, default=1.0)
    width: float = eqx.field(static=True, default=2.0)

    def __call__(self, schedule: AbstractSchedule, index: Index, steps: Index) -> Float[Array, ""]:
        """See the class."""
        high, low = _ends(schedule, None, None)
        begin, end = (jnp.arcsinh((-s - self.center) / self.width) for s in (high, low))
        place = begin + _progress(index, steps) * (end - begin)
        log_sigma = -(self.center + self.width * jnp.sinh(place))
        return _time_of_sigma(schedule, log_sigma, index, steps, True)


class GivenGrid(AbstractGrid):
    """Times given one by one: `times[0]` … `times[steps]`, decreasing.

    The last may be above 0: sampling then ends with noisy examples.

    **Raises:** `ValueError` if they do not decrease within [0, 1], or are used for another number of steps.
    """

    times: Float[Array, " steps_and_one"]

    def __init__(self, times):
        values = np.asarray(times, np.float32)
        if values.ndim != 1 or len(values) < 2:
            raise ValueError(f"a grid needs at least two times; got shape {values.shape}")
        if not (np.all(np.diff(values) < 0) and values[0] <= 1 and values[-1] >= 0):
            raise ValueError(f"times must decrease from at most 1 to at least 0; got {values}")
        self.times = jnp.asarray(values)

    def __call__(self, schedule: AbstractSchedule, index: Index, steps: Index) -> Float[Array, ""]:
        """See the class."""
        own = len(self.times) - 1
        if isinstance(steps, int) and steps != own:
            raise ValueError(f"the given grid has {own} steps, but {steps} are asked for")
        return self.times[index]


def _ends(schedule: AbstractSchedule, sigma_max: float | None, sigma_min: float | None):
    """log s at the start and before the end."""
    first = jnp.asarray(1.0 / schedule.num_timesteps)
    start = -0.5 * schedule.log_snr(jnp.ones(()))
    high = jnp.where(jnp.isinf(start), jnp.log(_LARGEST_SIGMA), start)
    low = -schedule.half_log_snr(first)
    return (
        high if sigma_max is None else jnp.log(jnp.asarray(sigma_max)),
        low if sigma_min is None else jnp.log(jnp.asarray(sigma_min)),
    )


def _progress(index: Index, steps: Index) -> Float[Array, ""]:
    """0 at the first index, 1 at the last before the end."""
    return jnp.asarray(index).astype(jnp.float32) / jnp.maximum(steps - 1, 1)


def _time_of_sigma(
    schedule: AbstractSchedule,
    log_sigma: Float[Array, ""],
    index: Index,
    steps: Index,
    whole: bool,
) -> Float[Array, ""]:
    """The time of log s; 0 at the end and, if the grid spans the `whole` schedule, 1 at the start."""
    t = schedule.time_of(-jax.lax.stop_gradient(log_sigma))
    if whole:
        t = jnp.where(jnp.asarray(index) <= 0, 1.0, t)
    return jnp.where(jnp.asarray(index) >= steps, 0.0, t)
