"""Denoisers: from a noisy example to an estimate of the clean one and of the noise.

A denoiser is what samplers and guidance see of a model. `Denoiser` wraps a trained network;
`GaussianDenoiser` and `GaussianMixtureDenoiser` are exact for data of a known distribution, and so the
oracles against which samplers are tested.
"""

from abc import abstractmethod
from typing import TYPE_CHECKING, ClassVar, NamedTuple, Protocol, runtime_checkable

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.core import Tracer
from jaxtyping import Array, Float

from diffusion_eqx._typing import Batch, Cond, PRNGKey, Time
from diffusion_eqx.parameterization import AbstractParameterization
from diffusion_eqx.schedules import AbstractSchedule, like


class Prediction(NamedTuple):
    """Estimates of the clean example and of the noise, with x_t = alpha·x0 + sigma·eps.

    `variance_fraction`, from networks that learn the variance of a step: 0 stands for the least and 1 for
    the greatest log-variance that a step can have (Nichol & Dhariwal 2021, eq. 15).
    """

    x0: Batch
    eps: Batch
    variance_fraction: Batch | None = None

    @staticmethod
    def from_x0(
        schedule: AbstractSchedule,
        x_t: Batch,
        t: Time,
        x0: Batch,
        variance_fraction: Batch | None = None,
    ) -> "Prediction":
        """Complete an estimate of x0: eps = (x_t − alpha·x0) / sigma, for t > 0."""
        alpha, sigma = like(schedule.alpha(t), x_t), like(schedule.sigma(t), x_t)
        return Prediction(x0, (x_t - alpha * x0) / sigma, variance_fraction)


@runtime_checkable
class Backbone(Protocol):
    """Any network of this call is a backbone; no base class is asked for."""

    def __call__(
        self, x: Batch, c_noise: Float[Array, " batch"], cond: Cond, *, key: PRNGKey | None
    ) -> Batch:
        """`x`: scaled noisy examples; `c_noise`: what is told of the time; `key`: for dropout."""
        ...


class AbstractDenoiser(eqx.Module):
    """`(x_t, t, cond, key) -> Prediction(x0, eps)`; guidance wraps one and is one.

    `exact_pair`: whether x_t = alpha·x0 + sigma·eps holds for what is predicted. Only `CFGPlusPlus` breaks
    it, on purpose, and samplers that do not read both halves refuse such a denoiser.
    """

    # A type checker takes an AbstractVar for an argument of __init__, a ClassVar not.
    if TYPE_CHECKING:
        schedule: ClassVar[AbstractSchedule]
        exact_pair: ClassVar[bool]
    else:
        schedule: eqx.AbstractVar[AbstractSchedule]
        exact_pair: eqx.AbstractVar[bool]

    @abstractmethod
    def __call__(
        self, x_t: Batch, t: Time, cond: Cond = None, *, key: PRNGKey | None = None
    ) -> Prediction:
        """Estimate x0 and eps of the noisy examples `x_t` at time `t` in (0, 1]."""


class AbstractExactDenoiser(AbstractDenoiser):
    """A denoiser whose prediction explains x_t."""

    @property
    def exact_pair(self) -> bool:
        """True."""
        return True


class Denoiser(AbstractExactDenoiser):
    """A network with the schedule and the parameterization it was (or will be) trained for.

    With `learned_variance`, the network gives twice the channels of its input; the second half is the
    prediction's `variance_fraction`, from −1 … 1.

    **Raises:** `ValueError` if the schedule has no signal at t = 1 and the parameterization needs some.
    """

    backbone: Backbone
    schedule: AbstractSchedule
    parameterization: AbstractParameterization
    learned_variance: bool = eqx.field(static=True, default=False)

    def __check_init__(self):
        if self.parameterization.needs_signal and _signal_vanishes(self.schedule):
            name = type(self.parameterization).__name__
            raise ValueError(
                f"{name} cannot be used with this schedule: nothing of the signal is left at t = 1, where "
                f"x0 cannot be found from the output of a network that predicts {name}; choose Velocity, "
                "VPrediction or Sample, or a schedule that keeps some signal"
            )

    def __call__(
        self, x_t: Batch, t: Time, cond: Cond = None, *, key: PRNGKey | None = None
    ) -> Prediction:
        """x0 = c_skip·x_t + c_out·F(c_in·x_t, c_noise), and eps = (x_t − alpha·x0)/sigma."""
        c = self.parameterization.coefficients(self.schedule, t)
        c_noise = jnp.broadcast_to(c.c_noise, x_t.shape[:1])
        output = self.backbone(like(c.c_in, x_t) * x_t, c_noise, cond, key=key)
        variance = None
        if self.learned_variance:
            output, variance = jnp.split(output, 2, axis=-1)
            variance = 0.5 * (variance + 1.0)
        x0 = like(c.c_skip, x_t) * x_t + like(c.c_out, x_t) * output
        return Prediction.from_x0(self.schedule, x_t, t, x0, variance)


def _signal_vanishes(schedule: AbstractSchedule) -> bool:
    """Whether alpha(1) is 0. While tracing this cannot be known, and is not claimed."""
    alpha = schedule.alpha(jnp.ones(()))
    return not isinstance(alpha, Tracer) and float(alpha) == 0.0


class GaussianDenoiser(AbstractExactDenoiser):
    """Exact for data ~ N(mean, std²), independent in each coordinate.

    E[x0 | x_t] = mean + alpha·std² / (alpha²·std² + sigma²) · (x_t − alpha·mean).
    `mean` and `std` have the shape of one example.
    """

    mean: Float[Array, "*shape"]
    std: Float[Array, "*shape"]
    schedule: AbstractSchedule

    def __call__(
        self, x_t: Batch, t: Time, cond: Cond = None, *, key: PRNGKey | None = None
    ) -> Prediction:
        """The posterior mean; `cond` and `key` are not used."""
        alpha, sigma = like(self.schedule.alpha(t), x_t), like(self.schedule.sigma(t), x_t)
        gain = alpha * self.std**2 / (alpha**2 * self.std**2 + sigma**2)
        x0 = self.mean + gain * (x_t - alpha * self.mean)
        return Prediction.from_x0(self.schedule, x_t, t, x0)


class GaussianMixtureDenoiser(AbstractExactDenoiser):
    """Exact for data from a mixture of isotropic Gaussians, sum_k weights_k N(means_k, stds_k² I).

    With r_k(x_t) the probability that x_t came from component k, a Gaussian N(alpha·m_k, s_k²·alpha² +
    sigma²) there, E[x0 | x_t] = sum_k r_k · (m_k + alpha·s_k²/(alpha²·s_k² + sigma²)·(x_t − alpha·m_k)).

    An integer `cond` picks one component for each example; a negative one means the whole mixture.
    """

    weights: Float[Array, " components"]
    means: Float[Array, "components *shape"]
    stds: Float[Array, " components"]
    schedule: AbstractSchedule

    def __call__(
        self, x_t: Batch, t: Time, cond: Cond = None, *, key: PRNGKey | None = None
    ) -> Prediction:
        """The posterior mean; `key` is not used."""
        time = jnp.broadcast_to(t, x_t.shape[:1])
        alpha, sigma = self.schedule.alpha(time)[:, None], self.schedule.sigma(time)[:, None]
        components = self.means.reshape(len(self.means), -1)  # (k, d)
        x = x_t.reshape(len(x_t), -1)  # (b, d)
        variance = alpha**2 * self.stds**2 + sigma**2  # (b, k)
        offset = x[:, None, :] - alpha[:, :, None] * components  # (b, k, d)
        log_likelihood = -0.5 * (
            jnp.sum(offset**2, axis=-1) / variance + x.shape[1] * jnp.log(variance)
        )
        log_prior = jnp.log(self.weights)[None]
        if cond is not None:
            chosen = jax.nn.one_hot(cond, len(self.weights))
            log_prior = jnp.where((cond < 0)[:, None], log_prior, jnp.log(chosen))
        responsibility = jax.nn.softmax(log_likelihood + log_prior, axis=-1)
        gain = alpha * self.stds**2 / variance
        posterior_mean = components + gain[:, :, None] * offset
        x0 = jnp.sum(responsibility[:, :, None] * posterior_mean, axis=1).reshape(x_t.shape)
        return Prediction.from_x0(self.schedule, x_t, t, x0)
