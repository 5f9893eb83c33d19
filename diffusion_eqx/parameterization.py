"""What a network predicts, as one affine map to the clean example.

    x0 = c_skip·x_t + c_out·F(c_in·x_t, c_noise)

F is the network. Solving for F gives its training target, (x0 − c_skip·x_t) / c_out, so a
parameterization is fully said by its four coefficients (the form is Karras et al. 2022, eq. 7).
"""

from abc import abstractmethod
from typing import NamedTuple

import equinox as eqx
import jax.numpy as jnp

from diffusion_eqx._typing import Time
from diffusion_eqx.schedules import AbstractSchedule


class Coefficients(NamedTuple):
    """The four numbers of a parameterization at time t; `c_noise` is what the network is told of t."""

    c_skip: Time
    c_out: Time
    c_in: Time
    c_noise: Time


class AbstractParameterization(eqx.Module):
    """Gives the affine map from the network's output to x0 at each time."""

    @abstractmethod
    def coefficients(self, schedule: AbstractSchedule, t: Time) -> Coefficients:
        """The coefficients at time t, of the shape of t."""


class Epsilon(AbstractParameterization):
    """The network predicts the noise: x0 = (x_t − sigma·F) / alpha (Ho et al. 2020, eq. 9)."""

    def coefficients(self, schedule: AbstractSchedule, t: Time) -> Coefficients:
        """c_skip = 1/alpha, c_out = −sigma/alpha."""
        alpha, sigma = schedule.alpha(t), schedule.sigma(t)
        return Coefficients(1.0 / alpha, -sigma / alpha, jnp.ones_like(t), schedule.timestep(t))


class Sample(AbstractParameterization):
    """The network predicts the clean example: x0 = F."""

    def coefficients(self, schedule: AbstractSchedule, t: Time) -> Coefficients:
        """c_skip = 0, c_out = 1."""
        return Coefficients(
            jnp.zeros_like(t), jnp.ones_like(t), jnp.ones_like(t), schedule.timestep(t)
        )


class VPrediction(AbstractParameterization):
    """The network predicts v = alpha·eps − sigma·x0 (Salimans & Ho 2022, appendix D).

    x0 = (alpha·x_t − sigma·F) / (alpha² + sigma²), whose denominator is 1 if variance is preserved.
    """

    def coefficients(self, schedule: AbstractSchedule, t: Time) -> Coefficients:
        """c_skip = alpha/(alpha² + sigma²), c_out = −sigma/(alpha² + sigma²)."""
        alpha, sigma = schedule.alpha(t), schedule.sigma(t)
        norm = alpha**2 + sigma**2
        return Coefficients(alpha / norm, -sigma / norm, jnp.ones_like(t), schedule.timestep(t))
