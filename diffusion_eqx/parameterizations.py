"""What a network predicts, as one affine map to the clean example.

    x0 = c_skip·x + c_out·F(c_in·x, c_noise)

F is the network. Solving for F gives its training target, (x0 − c_skip·x)/c_out, so four
coefficients say all of a parameterization (the form is that of Karras et al. 2022, eq. 7).

`c_in` is 1/sqrt(alpha² + sigma²): exactly 1 where variance is preserved, and what keeps the
network's input of unit size where it is not.
"""

from abc import abstractmethod
from typing import NamedTuple

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from diffusion_eqx._face import face as _face
from diffusion_eqx._typing import Real
from diffusion_eqx._values import AbstractValue, real
from diffusion_eqx.schedules import AbstractSchedule, NoiseLevel

PerLevel = Float[Array, "..."]


class Coefficients(NamedTuple):
    """The four numbers of a parameterization at a level; `c_noise` is what the network is told of it."""

    c_skip: PerLevel
    c_out: PerLevel
    c_in: PerLevel
    c_noise: PerLevel


class AbstractParameterization(AbstractValue):
    """Gives the affine map from the network's output to x0 at each level."""

    @abstractmethod
    def coefficients(self, schedule: AbstractSchedule, level: NoiseLevel) -> Coefficients:
        """The coefficients at a level of that schedule, each of the level's shape.

        They must be finite at every level of noise. `Denoiser` refuses a schedule for which they are not.
        """


class EpsilonPrediction(AbstractParameterization):
    """The network predicts the noise: x0 = (x − sigma·F)/alpha (Ho et al. 2020, eq. 9)."""

    def coefficients(self, schedule: AbstractSchedule, level: NoiseLevel) -> Coefficients:
        """c_skip = 1/alpha, c_out = −sigma/alpha."""
        return Coefficients(
            1.0 / level.alpha,
            -level.sigma / level.alpha,
            _unit_scale(level),
            schedule.timestep_of(level),
        )


class X0Prediction(AbstractParameterization):
    """The network predicts the clean example: x0 = F. Other libraries call it `sample`."""

    def coefficients(self, schedule: AbstractSchedule, level: NoiseLevel) -> Coefficients:
        """c_skip = 0, c_out = 1."""
        one = jnp.ones_like(level.alpha)
        return Coefficients(0.0 * one, one, _unit_scale(level), schedule.timestep_of(level))


class VPrediction(AbstractParameterization):
    """The network predicts v = alpha·eps − sigma·x0 (Salimans & Ho 2022, appendix D).

    x0 = (alpha·x − sigma·F)/(alpha² + sigma²). The denominator is 1 where variance is preserved.
    """

    def coefficients(self, schedule: AbstractSchedule, level: NoiseLevel) -> Coefficients:
        """c_skip = alpha/(alpha² + sigma²), c_out = −sigma/(alpha² + sigma²)."""
        size = level.alpha**2 + level.sigma**2
        return Coefficients(
            level.alpha / size,
            -level.sigma / size,
            _unit_scale(level),
            schedule.timestep_of(level),
        )


class ScorePrediction(AbstractParameterization):
    """The network predicts the score, grad log p(x) = −eps/sigma (Song et al. 2021, eq. 7).

    The score grows like 1/sigma, so by default F is its multiple of unit size: score =
    `scaling`·F/sigma (Song & Ermon 2020, technique 3). With `divided_by_sigma=False`, score =
    `scaling`·F. Hence x0 = (x + sigma²·score)/alpha.
    """

    scaling: Real = real(1.0)
    divided_by_sigma: bool = eqx.field(static=True, default=True)

    def coefficients(self, schedule: AbstractSchedule, level: NoiseLevel) -> Coefficients:
        """c_skip = 1/alpha, c_out = scaling·sigma/alpha (or scaling·sigma²/alpha)."""
        unit = level.sigma if self.divided_by_sigma else level.sigma**2
        return Coefficients(
            1.0 / level.alpha,
            self.scaling * unit / level.alpha,
            _unit_scale(level),
            schedule.timestep_of(level),
        )


class VelocityPrediction(AbstractParameterization):
    """The network predicts dx/dt = alpha'·x0 + sigma'·eps, the flow's velocity (Lipman et al. 2023).

    x0 = (sigma'·x − sigma·F)/(sigma'·alpha − sigma·alpha'). For the straight path of `FlowSchedule` that is
    x − t·F, F being eps − x0. The input is not scaled, as is usual for flows.
    """

    def coefficients(self, schedule: AbstractSchedule, level: NoiseLevel) -> Coefficients:
        """c_skip = sigma'/d, c_out = −sigma/d with d = sigma'·alpha − sigma·alpha'."""
        sigma_rate = schedule.sigma_rate(level.time)
        d = sigma_rate * level.alpha - level.sigma * schedule.alpha_rate(level.time)
        return Coefficients(
            sigma_rate / d,
            -level.sigma / d,
            jnp.ones_like(level.alpha),
            schedule.timestep_of(level),
        )


class EDMPrediction(AbstractParameterization):
    """Input, output and target of unit variance at every level (Karras et al. 2022, table 1).

    In s = sigma/alpha: c_skip = sd²/(s² + sd²), c_out = s·sd/sqrt(s² + sd²), c_in = 1/sqrt(s² +
    sd²), all acting on x/alpha, and c_noise = log(s)/4. sd is `sigma_data`, the standard deviation
    of the data.
    """

    sigma_data: Real = real(0.5)

    def coefficients(self, schedule: AbstractSchedule, level: NoiseLevel) -> Coefficients:
        """The four of the class, for x in place of x/alpha."""
        s = level.sigma / level.alpha
        total = s**2 + self.sigma_data**2
        return Coefficients(
            self.sigma_data**2 / total / level.alpha,
            s * self.sigma_data / jnp.sqrt(total),
            1.0 / (jnp.sqrt(total) * level.alpha),
            # log s, from the log-SNR, which keeps its digits and is finite.
            -0.25 * level.lam,
        )


def build_parameterization(
    prediction_type: str, *, score_scaling: float = 1.0, data_std: float = 0.5
) -> AbstractParameterization:
    """The parameterization of a name, as configurations have it.

    - `prediction_type`: `epsilon`, `sample`, `v_prediction`, `score`, `velocity` or `edm`.
    - `score_scaling`: of `score`.
    - `data_std`: the standard deviation of what is denoised, for `edm`.

    **Raises:** `ValueError` for another name.
    """
    match prediction_type:
        case "epsilon":
            return EpsilonPrediction()
        case "sample":
            return X0Prediction()
        case "v_prediction":
            return VPrediction()
        case "score":
            return ScorePrediction(score_scaling)
        case "velocity":
            return VelocityPrediction()
        case "edm":
            return EDMPrediction(data_std)
    raise ValueError(
        f"unknown prediction {prediction_type!r}; choose epsilon, sample, v_prediction, score, velocity or "
        "edm"
    )


def _unit_scale(level: NoiseLevel) -> PerLevel:
    return 1.0 / jnp.sqrt(level.alpha**2 + level.sigma**2)


__dir__ = _face(globals())
