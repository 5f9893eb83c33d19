"""Grids: at which times a sampler stops on its way from noise to image.

A grid is a pure function of (step index, number of steps), so that the number of steps may be chosen
at run time, in an exported program too. Index 0 is the start; index `steps` is the end, t = 0.
"""

from abc import abstractmethod

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from diffusion_eqx.schedules import AbstractSchedule

Index = int | Int[Array, ""]


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
