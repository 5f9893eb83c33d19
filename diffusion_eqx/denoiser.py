"""Denoisers: from a noisy example to an estimate of the clean one and of the noise.

A denoiser is what samplers and guidance see of a model. `Denoiser` wraps a trained network;
`GaussianDenoiser` and `GaussianMixtureDenoiser` are exact for data of a known distribution, and so the
oracles against which samplers are tested.
"""

from abc import abstractmethod
from typing import NamedTuple, Protocol, runtime_checkable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from diffusion_eqx._typing import Batch, Cond, PRNGKey, Time
from diffusion_eqx.parameterization import AbstractParameterization
from diffusion_eqx.schedules import AbstractSchedule, like


class Prediction(NamedTuple):
    """Estimates of the clean example and of the noise, with x_t = alpha·x0 + sigma·eps."""

    x0: Batch
    eps: Batch

    @staticmethod
    def from_x0(schedule: AbstractSchedule, x_t: Batch, t: Time, x0: Batch) -> "Prediction":
        """Complete an estimate of x0: eps = (x_t − alpha·x0) / sigma, for t > 0."""
        alpha, sigma = like(schedule.alpha(t), x_t), like(schedule.sigma(t), x_t)
        return Prediction(x0, (x_t - alpha * x0) / sigma)


@runtime_checkable
class Backbone(Protocol):
    """Any network of this call is a backbone; no base class is asked for."""

    def __call__(
        self, x: Batch, c_noise: Float[Array, " batch"], cond: Cond, *, key: PRNGKey | None
    ) -> Batch:
        """`x`: scaled noisy examples; `c_noise`: what is told of the time; `key`: for dropout."""
        ...


class AbstractDenoiser(eqx.Module):
    """`(x_t, t, cond, key) -> Prediction(x0, eps)`; guidance wraps one and is one."""

    schedule: eqx.AbstractVar[AbstractSchedule]

    @abstractmethod
    def __call__(
        self, x_t: Batch, t: Time, cond: Cond = None, *, key: PRNGKey | None = None
    ) -> Prediction:
        """Estimate x0 and eps of the noisy examples `x_t` at time `t` in (0, 1]."""


class Denoiser(AbstractDenoiser):
    """A network with the schedule and the parameterization it was (or will be) trained for."""

    backbone: Backbone
    schedule: AbstractSchedule
    parameterization: AbstractParameterization

    def __call__(
        self, x_t: Batch, t: Time, cond: Cond = None, *, key: PRNGKey | None = None
    ) -> Prediction:
        """x0 = c_skip·x_t + c_out·F(c_in·x_t, c_noise), and eps = (x_t − alpha·x0)/sigma."""
        c = self.parameterization.coefficients(self.schedule, t)
        c_noise = jnp.broadcast_to(c.c_noise, x_t.shape[:1])
        output = self.backbone(like(c.c_in, x_t) * x_t, c_noise, cond, key=key)
        x0 = like(c.c_skip, x_t) * x_t + like(c.c_out, x_t) * output
        return Prediction.from_x0(self.schedule, x_t, t, x0)


class GaussianDenoiser(AbstractDenoiser):
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


class GaussianMixtureDenoiser(AbstractDenoiser):
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
