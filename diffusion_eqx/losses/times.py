"""Which noise levels are trained, and how often."""

from abc import abstractmethod

import jax
import jax.numpy as jnp
from jax.scipy.special import ndtri
from jaxtyping import Array, Float

from diffusion_eqx._typing import PRNGKey, Real
from diffusion_eqx._values import AbstractValue, real
from diffusion_eqx.schedules import AbstractSchedule, NoiseLevel


class AbstractTimes(AbstractValue):
    """A distribution of training levels, given by one inverse cumulative distribution function."""

    @abstractmethod
    def __call__(self, schedule: AbstractSchedule, uniforms: Float[Array, " batch"]) -> NoiseLevel:
        """The levels, (batch,), of numbers that are uniform in [0, 1)."""


class UniformTimes(AbstractTimes):
    """Every timestep 0 … T−1 as often as any other."""

    def __call__(self, schedule: AbstractSchedule, uniforms: Float[Array, " batch"]) -> NoiseLevel:
        """The levels of floor(u·T)."""
        total = schedule.num_timesteps
        timesteps = jnp.floor(uniforms * total).astype(jnp.int32)
        return schedule.at_timestep(jnp.minimum(timesteps, total - 1))


class LogitNormalTimes(AbstractTimes):
    """t = sigmoid(mean + std·z) with z ~ N(0, 1) (Esser et al. 2024, section 3.1).

    Levels cleaner than the first timestep are trained at it.
    """

    mean: Real = real(0.0)
    std: Real = real(1.0)

    def __call__(self, schedule: AbstractSchedule, uniforms: Float[Array, " batch"]) -> NoiseLevel:
        """The levels at the quantiles."""
        rounding = jnp.finfo(uniforms.dtype).eps
        z = ndtri(jnp.clip(uniforms, rounding, 1.0 - rounding))
        t = jax.nn.sigmoid(self.mean + self.std * z)
        return schedule.at(jnp.clip(t, 1.0 / schedule.num_timesteps, 1.0))


def stratified(key: PRNGKey, count: int) -> Float[Array, " count"]:
    """Numbers that are uniform in [0, 1) and spread evenly over the batch.

    One random offset and equal spacing: each is uniform by itself, but the loss of a batch varies
    less than with independent ones (Kingma et al. 2021, appendix I.1).
    """
    offset = jax.random.uniform(key, dtype=float)
    return jnp.minimum((offset + jnp.arange(count).astype(float)) / count, 1.0 - 2.0**-24)
