"""What the error at each noise level weighs."""

from abc import abstractmethod

import jax.numpy as jnp
from jaxtyping import Array, Float

from diffusion_eqx._typing import Real
from diffusion_eqx._values import AbstractValue, real
from diffusion_eqx.schedules import NoiseLevel

PerLevel = Float[Array, "..."]


class AbstractWeight(AbstractValue):
    """Weight of the error of the network's output F at each level.

    A weight w(level) on the squared error of x0 is w·c_out² on that of F, since x0 = c_skip·x +
    c_out·F. So one rule serves every parameterization.
    """

    @abstractmethod
    def __call__(self, level: NoiseLevel, c_out: PerLevel) -> PerLevel:
        """The weight of F's error, of the shape of the level."""


class Uniform(AbstractWeight):
    """Every error of the output counts the same (for epsilon: L_simple of Ho et al. 2020, eq. 14)."""

    def __call__(self, level: NoiseLevel, c_out: PerLevel) -> PerLevel:
        """1."""
        return jnp.ones_like(level.log_snr)


class SNR(AbstractWeight):
    """The error of x0 counts by the signal-to-noise ratio (Salimans & Ho 2022, section 4)."""

    def __call__(self, level: NoiseLevel, c_out: PerLevel) -> PerLevel:
        """snr·c_out²."""
        return jnp.exp(level.log_snr) * c_out**2


class MinSNR(AbstractWeight):
    """The error of x0 counts by min(snr, gamma) (Hang et al. 2023, eq. 8).

    On the output this is min(snr, gamma)/snr for epsilon and min(snr, gamma)/(snr + 1) for v.
    """

    gamma: Real = real(5.0)

    def __call__(self, level: NoiseLevel, c_out: PerLevel) -> PerLevel:
        """min(snr, gamma)·c_out²."""
        return jnp.minimum(jnp.exp(level.log_snr), self.gamma) * c_out**2
