"""What a network predicts, as one affine map to the clean example.

    x0 = c_skip·x_t + c_out·F(c_in·x_t, c_noise)

F is the network. Solving for F gives its training target, (x0 − c_skip·x_t) / c_out, so a
parameterization is fully said by its four coefficients (the form is Karras et al. 2022, eq. 7).

`c_in` is 1/sqrt(alpha² + sigma²): exactly 1 where variance is preserved, and what keeps the network's
input of unit size where it is not.
"""

from abc import abstractmethod
from typing import ClassVar, NamedTuple

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
    """Gives the affine map from the network's output to x0 at each time.

    `needs_signal`: whether the map has a pole where alpha = 0, so that a schedule whose signal vanishes
    at t = 1 cannot be sampled from with it.
    """

    needs_signal: eqx.AbstractClassVar[bool]

    @abstractmethod
    def coefficients(self, schedule: AbstractSchedule, t: Time) -> Coefficients:
        """The coefficients at time t, of the shape of t."""


class Epsilon(AbstractParameterization):
    """The network predicts the noise: x0 = (x_t − sigma·F) / alpha (Ho et al. 2020, eq. 9)."""

    needs_signal: ClassVar[bool] = True

    def coefficients(self, schedule: AbstractSchedule, t: Time) -> Coefficients:
        """c_skip = 1/alpha, c_out = −sigma/alpha."""
        alpha, sigma = schedule.alpha(t), schedule.sigma(t)
        return Coefficients(
            1.0 / alpha, -sigma / alpha, _unit_scale(alpha, sigma), schedule.timestep(t)
        )


class Sample(AbstractParameterization):
    """The network predicts the clean example: x0 = F."""

    needs_signal: ClassVar[bool] = False

    def coefficients(self, schedule: AbstractSchedule, t: Time) -> Coefficients:
        """c_skip = 0, c_out = 1."""
        c_in = _unit_scale(schedule.alpha(t), schedule.sigma(t))
        return Coefficients(jnp.zeros_like(t), jnp.ones_like(t), c_in, schedule.timestep(t))


class VPrediction(AbstractParameterization):
    """The network predicts v = alpha·eps − sigma·x0 (Salimans & Ho 2022, appendix D).

    x0 = (alpha·x_t − sigma·F) / (alpha² + sigma²), whose denominator is 1 if variance is preserved.
    """

    needs_signal: ClassVar[bool] = False

    def coefficients(self, schedule: AbstractSchedule, t: Time) -> Coefficients:
        """c_skip = alpha/(alpha² + sigma²), c_out = −sigma/(alpha² + sigma²)."""
        alpha, sigma = schedule.alpha(t), schedule.sigma(t)
        norm = alpha**2 + sigma**2
        return Coefficients(
            alpha / norm, -sigma / norm, _unit_scale(alpha, sigma), schedule.timestep(t)
        )


class Score(AbstractParameterization):
    """The network predicts the score, grad log p_t(x_t) = −eps/sigma (Song et al. 2021, eq. 7).

    Since the score grows like 1/sigma, F is by default its multiple of unit size: score =
    `scaling`·F/sigma (Song & Ermon 2020, technique 3). With `divided_by_sigma=False`, score = `scaling`·F.
    So x0 = (x_t + sigma²·score) / alpha.
    """

    needs_signal: ClassVar[bool] = True
    scaling: float = eqx.field(static=True, default=1.0)
    divided_by_sigma: bool = eqx.field(static=True, default=True)

    def coefficients(self, schedule: AbstractSchedule, t: Time) -> Coefficients:
        """c_skip = 1/alpha, c_out = scaling·sigma/alpha (or scaling·sigma²/alpha)."""
        alpha, sigma = schedule.alpha(t), schedule.sigma(t)
        unit = sigma if self.divided_by_sigma else sigma**2
        return Coefficients(
            1.0 / alpha,
            self.scaling * unit / alpha,
            _unit_scale(alpha, sigma),
            schedule.timestep(t),
        )


class Velocity(AbstractParameterization):
    """The network predicts dx_t/dt = alpha'·x0 + sigma'·eps, the flow's velocity (Lipman et al. 2023).

    x0 = (sigma'·x_t − sigma·F) / (sigma'·alpha − sigma·alpha'); for the straight path of `FlowSchedule`
    that is x_t − t·F, F being eps − x0. The input is not scaled, as is usual for flows.
    """

    needs_signal: ClassVar[bool] = False

    def coefficients(self, schedule: AbstractSchedule, t: Time) -> Coefficients:
        """c_skip = sigma'/d, c_out = −sigma/d with d = sigma'·alpha − sigma·alpha'."""
        alpha, sigma = schedule.alpha(t), schedule.sigma(t)
        sigma_rate = schedule.sigma_rate(t)
        d = sigma_rate * alpha - sigma * schedule.alpha_rate(t)
        return Coefficients(sigma_rate / d, -sigma / d, jnp.ones_like(t), schedule.timestep(t))


class EDM(AbstractParameterization):
    """Karras et al. (2022, table 1): input, output and target of unit variance at every noise level.

    In s = sigma/alpha: c_skip = sd²/(s² + sd²), c_out = s·sd/sqrt(s² + sd²), c_in = 1/sqrt(s² + sd²), all
    acting on x_t/alpha, and c_noise = log(s)/4. sd is `sigma_data`, the data's standard deviation.
    """

    needs_signal: ClassVar[bool] = True
    sigma_data: float = eqx.field(static=True, default=0.5)

    def coefficients(self, schedule: AbstractSchedule, t: Time) -> Coefficients:
        """See the class."""
        alpha = schedule.alpha(t)
        s = schedule.sigma(t) / alpha
        total = s**2 + self.sigma_data**2
        return Coefficients(
            self.sigma_data**2 / total / alpha,
            s * self.sigma_data / jnp.sqrt(total),
            1.0 / (jnp.sqrt(total) * alpha),
            0.25 * jnp.log(s),
        )


def _unit_scale(alpha: Time, sigma: Time) -> Time:
    return 1.0 / jnp.sqrt(alpha**2 + sigma**2)
