"""Schedules given by formulas in continuous time."""

from abc import abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from diffusion_eqx._typing import Real
from diffusion_eqx._values import is_traced, real
from diffusion_eqx.schedules.base import AbstractSchedule, unit_pair
from diffusion_eqx.schedules.level import safe_log, safe_sqrt


class VPSchedule(AbstractSchedule):
    """The variance-preserving SDE with linear beta (Song et al. 2021, eq. 32 f.).

    log alpha_bar(t) = −beta_min·t − (beta_max − beta_min)·t²/2, alpha² = alpha_bar = 1 − sigma².

    **Raises:** `ValueError` unless 0 < beta_min <= beta_max.
    """

    beta_min: Real = real(0.1)
    beta_max: Real = real(20.0)

    def __check_init__(self):
        if not is_traced(self) and not 0.0 < self.beta_min <= self.beta_max:
            raise ValueError(
                f"VPSchedule needs 0 < beta_min <= beta_max; got {self.beta_min} and {self.beta_max}"
            )

    def _log_alpha_bar(self, t: Float[Array, "*s"]) -> Float[Array, "*s"]:
        return -(self.beta_min + 0.5 * (self.beta_max - self.beta_min) * t) * t

    def alpha(self, t: Float[Array, "*s"]) -> Float[Array, "*s"]:
        """sqrt(alpha_bar(t))."""
        return jnp.exp(0.5 * self._log_alpha_bar(t))

    def sigma(self, t: Float[Array, "*s"]) -> Float[Array, "*s"]:
        """sqrt(1 − alpha_bar(t)), without cancellation near t = 0."""
        return safe_sqrt(-jnp.expm1(self._log_alpha_bar(t)))

    def log_snr(self, t: Float[Array, "*s"]) -> Float[Array, "*s"]:
        """log(alpha_bar/(1 − alpha_bar)) at time t."""
        log_alpha_bar = self._log_alpha_bar(t)
        return log_alpha_bar - safe_log(-jnp.expm1(log_alpha_bar))

    def time_of_log_snr(self, log_snr: Float[Array, "*s"]) -> Float[Array, "*s"]:
        """The positive root of a quadratic equation, alpha_bar being the logistic function of the
        log-SNR.
        """
        depth = 2.0 * jax.nn.softplus(-log_snr)
        slope = self.beta_max - self.beta_min
        root = jnp.sqrt(self.beta_min**2 + slope * depth)
        return jnp.clip(depth / (self.beta_min + root), 0.0, 1.0)

    def pair_of_log_snr(
        self, log_snr: Float[Array, "*s"], time: Float[Array, "*s"]
    ) -> tuple[Float[Array, "*s"], Float[Array, "*s"]]:
        """(alpha, sigma) with alpha² + sigma² = 1."""
        return unit_pair(log_snr)


class AbstractExplodingSchedule(AbstractSchedule):
    """Variance exploding: alpha = 1; sigma grows from `sigma_min` at the first timestep to
    `sigma_max` at t = 1.

    A schedule says how sigma grows with u = (t − 1/T)/(1 − 1/T), from 0 to 1. Below the first
    timestep sigma falls linearly to 0.

    **Raises:** `ValueError` unless 0 < sigma_min < sigma_max and there are at least two timesteps.
    """

    # A type checker takes an AbstractVar for an argument of __init__, a ClassVar not.
    if TYPE_CHECKING:
        sigma_min: ClassVar[Any]
        sigma_max: ClassVar[Any]
    else:
        sigma_min: eqx.AbstractVar[Real]
        sigma_max: eqx.AbstractVar[Real]

    def __check_init__(self):
        name = type(self).__name__
        if not is_traced(self) and not 0.0 < self.sigma_min < self.sigma_max:
            raise ValueError(
                f"{name} needs 0 < sigma_min < sigma_max; got {self.sigma_min} and {self.sigma_max}"
            )
        if self.num_timesteps < 2:
            raise ValueError(f"{name} needs at least two timesteps; got {self.num_timesteps}")

    @abstractmethod
    def growth(self, u: Float[Array, "*s"]) -> Float[Array, "*s"]:
        """sigma at u in [0, 1]."""

    @abstractmethod
    def place(self, sigma: Float[Array, "*s"]) -> Float[Array, "*s"]:
        """u at a sigma of at least `sigma_min`: the inverse of `growth`."""

    def alpha(self, t: Float[Array, "*s"]) -> Float[Array, "*s"]:
        """1."""
        return jnp.ones_like(t)

    def sigma(self, t: Float[Array, "*s"]) -> Float[Array, "*s"]:
        """sigma at time t."""
        steps = t * self.num_timesteps
        u = jnp.maximum(steps - 1.0, 0.0) / (self.num_timesteps - 1)
        return jnp.where(steps < 1.0, self.sigma_min * steps, self.growth(u))

    def log_snr(self, t: Float[Array, "*s"]) -> Float[Array, "*s"]:
        """−2·log(sigma) at time t."""
        return -2.0 * safe_log(self.sigma(t))

    def time_of_log_snr(self, log_snr: Float[Array, "*s"]) -> Float[Array, "*s"]:
        """The time of sigma = exp(−log_snr/2), in closed form."""
        sigma = jnp.exp(-0.5 * log_snr)
        above = 1.0 + (self.num_timesteps - 1) * self.place(jnp.maximum(sigma, self.sigma_min))
        steps = jnp.where(sigma < self.sigma_min, sigma / self.sigma_min, above)
        return jnp.clip(steps / self.num_timesteps, 0.0, 1.0)

    def pair_of_log_snr(
        self, log_snr: Float[Array, "*s"], time: Float[Array, "*s"]
    ) -> tuple[Float[Array, "*s"], Float[Array, "*s"]]:
        """(1, exp(−log_snr/2))."""
        return jnp.ones_like(log_snr), jnp.exp(-0.5 * log_snr)


class VESchedule(AbstractExplodingSchedule):
    """sigma = sigma_min·(sigma_max/sigma_min)^u (Song & Ermon 2019; Song et al. 2021, eq. 30).

    The T timesteps are Song's noise levels.
    """

    sigma_min: Real = real(0.01)
    sigma_max: Real = real(50.0)

    def growth(self, u: Float[Array, "*s"]) -> Float[Array, "*s"]:
        """A geometric sequence."""
        return self.sigma_min * (self.sigma_max / self.sigma_min) ** u

    def place(self, sigma: Float[Array, "*s"]) -> Float[Array, "*s"]:
        """log(sigma/sigma_min) / log(sigma_max/sigma_min)."""
        whole = jnp.log(jnp.asarray(self.sigma_max / self.sigma_min, sigma.dtype))
        return jnp.log(sigma / self.sigma_min) / whole


class EDMSchedule(AbstractExplodingSchedule):
    """The noise levels of Karras et al. (2022, eq. 5), equally spaced in t.

    sigma = (sigma_min^(1/rho) + u·(sigma_max^(1/rho) − sigma_min^(1/rho)))^rho. Time is only a
    label here: what matters to networks (by `EDMPrediction`) and samplers is sigma.
    """

    sigma_min: Real = real(0.002)
    sigma_max: Real = real(80.0)
    rho: Real = real(7.0)

    def _roots(self) -> tuple[Real, Real]:
        return self.sigma_min ** (1.0 / self.rho), self.sigma_max ** (1.0 / self.rho)

    def growth(self, u: Float[Array, "*s"]) -> Float[Array, "*s"]:
        """A sequence that is arithmetic in sigma^(1/rho)."""
        low, high = self._roots()
        return (low + u * (high - low)) ** self.rho

    def place(self, sigma: Float[Array, "*s"]) -> Float[Array, "*s"]:
        """(sigma^(1/rho) − low)/(high − low), with low and high the roots of both ends."""
        low, high = self._roots()
        return (sigma ** (1.0 / self.rho) - low) / (high - low)


class FlowSchedule(AbstractSchedule):
    """The straight path of rectified flow: alpha = 1 − t, sigma = t (Liu et al. 2023).

    Nothing of the signal is left at t = 1.
    """

    def alpha(self, t: Float[Array, "*s"]) -> Float[Array, "*s"]:
        """1 − t."""
        return 1.0 - t

    def sigma(self, t: Float[Array, "*s"]) -> Float[Array, "*s"]:
        """t."""
        return t

    def time_of_log_snr(self, log_snr: Float[Array, "*s"]) -> Float[Array, "*s"]:
        """The logistic function of −log_snr/2."""
        return jax.nn.sigmoid(-0.5 * log_snr)

    def pair_of_log_snr(
        self, log_snr: Float[Array, "*s"], time: Float[Array, "*s"]
    ) -> tuple[Float[Array, "*s"], Float[Array, "*s"]]:
        """The logistic functions of ±log_snr/2, whose sum is 1."""
        return jax.nn.sigmoid(0.5 * log_snr), jax.nn.sigmoid(-0.5 * log_snr)
