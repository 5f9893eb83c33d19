"""Parts chosen at run time, so that one compiled program tries all combinations of them."""

import equinox as eqx
import jax
import jax.numpy as jnp

from diffusion_eqx.denoiser import AbstractDenoiser, Denoiser, Prediction, as_level
from diffusion_eqx.guidance import AbstractGuidance, Guided
from diffusion_eqx.parameterizations import AbstractParameterization, Coefficients
from diffusion_eqx.samplers import AbstractGrid, AbstractNoise
from diffusion_eqx.schedules import AbstractSchedule


class AnyGrid(AbstractGrid):
    grids: tuple[AbstractGrid, ...]
    which: jax.Array

    def __call__(self, schedule, index, steps):
        branches = [lambda i, n, grid=grid: grid(schedule, i, n) for grid in self.grids]
        return jax.lax.switch(self.which, branches, index, steps)


class AnyParameterization(AbstractParameterization):
    parameterizations: tuple[AbstractParameterization, ...]
    which: jax.Array

    def coefficients(self, schedule, level) -> Coefficients:
        found = [p.coefficients(schedule, level) for p in self.parameterizations]
        return jax.tree.map(lambda *each: jnp.stack(each)[self.which], *found)


class AnyGuidance(AbstractGuidance):
    """One of several, each a guidance, a tuple of such, or None."""

    several: tuple
    which: jax.Array

    def __call__(self, denoiser, x, level, cond):
        def branch(guidance):
            guided = denoiser if guidance is None else Guided(denoiser, guidance)
            return lambda: tuple(guided(x, level, cond))

        return Prediction(*jax.lax.switch(self.which, [branch(g) for g in self.several]))


class ByNetwork(AbstractDenoiser):
    """An exact denoiser that goes the way of a network's output under a parameterization."""

    oracle: AbstractDenoiser
    parameterization: AbstractParameterization

    @property
    def schedule(self) -> AbstractSchedule:
        return self.oracle.schedule

    @property
    def null(self):
        return self.oracle.null

    def __call__(self, x, level, cond=None):
        level = as_level(self.schedule, level)
        shell = Denoiser(lambda *_, key: None, self.schedule, self.parameterization)
        output = shell.target(x, level, self.oracle(x, level, cond).x0)
        return shell.prediction(x, level, output)


class TwoGaussians(AbstractDenoiser):
    """Exact for N(mean, std²) under a condition, and for N(other_mean, std²) without.

    With `to_the_end`, a consistency model in place of a denoiser: x0 is the end of the flow, in
    closed form.
    """

    mean: jax.Array
    other_mean: jax.Array
    std: jax.Array
    schedule: AbstractSchedule
    null: int = -1
    to_the_end: bool = eqx.field(static=True, default=False)

    def __call__(self, x, level, cond=None):
        level = as_level(self.schedule, level).over(x)
        known = jnp.ones(len(x), bool) if cond is None else cond >= 0
        mean = jnp.where(known.reshape(-1, *(1,) * (x.ndim - 1)), self.mean, self.other_mean)
        total = level.alpha**2 * self.std**2 + level.sigma**2
        offset = x - level.alpha * mean
        if self.to_the_end:
            x0 = mean + self.std * offset / jnp.sqrt(total)
            return Prediction(x0, level.eps(x, x0))
        return Prediction(
            mean + level.alpha * self.std**2 / total * offset, level.sigma / total * offset
        )


class UnitNoise(AbstractNoise):
    """Coordinate k + 1 sees the noise of step k, and no other; the answers to each noise are read off."""

    def __call__(self, state, t, s):
        return unit(state.column(state.index + 1), state.x)


def unit(place, x):
    coordinate = jnp.arange(x.shape[-1], dtype=jnp.int32).reshape((1,) * (x.ndim - 1) + (-1,))
    return jnp.broadcast_to((coordinate == place).astype(x.dtype), x.shape)
