"""Schedules given by formulas in continuous time."""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from diffusion_eqx.schedules.base import AbstractSchedule


class VPSchedule(AbstractSchedule):
    """The variance-preserving SDE with linear beta (Song et al. 2021, eq. 32 f.).

    log alpha_bar(t) = −beta_min·t − (beta_max − beta_min)·t²/2, alpha² = alpha_bar = 1 − sigma².
    """

    beta_min: float = eqx.field(static=True, default=0.1)
    beta_max: float = eqx.field(static=True, default=20.0)
    num_timesteps: int = eqx.field(static=True, default=1000)

    def __check_init__(self):
        if not 0.0 < self.beta_min <= self.beta_max:
            raise ValueError(
                f"VPSchedule needs 0 < beta_min <= beta_max; got {self.beta_min} and {self.beta_max}"
            )

    def _log_alpha_bar(self, t: Float[Array, "*s"]) -> Float[Array, "*s"]:
        return -(self.beta_min + 0.5 * (self.beta_max - self.beta_min) * t) * t

    def alpha(self, t: Float[Array, "*s"]) -> Float[Array, "*s"]:
        """sqrt(alpha_bar(t))."""
        return jnp.exp(0.5 * self._log_alpha_bar(t))

    def sigma(self, t: Float[Array, "*s"]) -> Float[Array, "*s"]:
        """sqrt(1 − alpha_bar(t))."""
        return jnp.sqrt(-jnp.expm1(self._log_alpha_bar(t)))


class VESchedule(AbstractSchedule):
    """Variance exploding: alpha = 1, sigma geometric (Song & Ermon 2019; Song et al. 2021, eq. 30).

    sigma = sigma_min·(sigma_max/sigma_min)^u with u = (t − 1/T)/(1 − 1/T), so that the T timesteps are
    Song's noise levels; below the first of them sigma falls linearly to 0.
    """

    sigma_min: float = eqx.field(static=True, default=0.01)
    sigma_max: float = eqx.field(static=True, default=50.0)
    num_timesteps: int = eqx.field(static=True, default=1000)

    def __check_init__(self):
        _check_sigmas("VESchedule", self.sigma_min, self.sigma_max, self.num_timesteps)

    def alpha(self, t: Float[Array, "*s"]) -> Float[Array, "*s"]:
        """1."""
        return jnp.ones_like(t)

    def sigma(self, t: Float[Array, "*s"]) -> Float[Array, "*s"]:
        """See the class."""
        above = self.sigma_min * (self.sigma_max / self.sigma_min) ** _ramp(t, self.num_timesteps)
        return jnp.where(
            t * self.num_timesteps < 1.0, self.sigma_min * self.num_timesteps * t, above
        )


class EDMSchedule(AbstractSchedule):
    """alpha = 1 and the noise levels of Karras et al. (2022, eq. 5), equally spaced in t.

    sigma = (sigma_min^(1/rho) + u·(sigma_max^(1/rho) − sigma_min^(1/rho)))^rho with
    u = (t − 1/T)/(1 − 1/T); below the first timestep sigma falls linearly to 0. Time is only a label
    here: what matters to networks (by `EDM`) and samplers is sigma.
    """

    sigma_min: float = eqx.field(static=True, default=0.002)
    sigma_max: float = eqx.field(static=True, default=80.0)
    rho: float = eqx.field(static=True, default=7.0)
    num_timesteps: int = eqx.field(static=True, default=1000)

    def __check_init__(self):
        _check_sigmas("EDMSchedule", self.sigma_min, self.sigma_max, self.num_timesteps)

    def alpha(self, t: Float[Array, "*s"]) -> Float[Array, "*s"]:
        """1."""
        return jnp.ones_like(t)

    def sigma(self, t: Float[Array, "*s"]) -> Float[Array, "*s"]:
        """See the class."""
        low, high = self.sigma_min ** (1.0 / self.rho), self.sigma_max ** (1.0 / self.rho)
        above = (low + _ramp(t, self.num_timesteps) * (high - low)) ** self.rho
        return jnp.where(
            t * self.num_timesteps < 1.0, self.sigma_min * self.num_timesteps * t, above
        )


class FlowSchedule(AbstractSchedule):
    """The straight path of rectified flow: alpha = 1 − t, sigma = t (Liu et al. 2023).

    Nothing of the signal is left at t = 1.
    """

    num_timesteps: int = eqx.field(static=True, default=1000)

    def alpha(self, t: Float[Array, "*s"]) -> Float[Array, "*s"]:
        """1 − t."""
        return 1.0 - t

    def sigma(self, t: Float[Array, "*s"]) -> Float[Array, "*s"]:
        """t."""
        return t


def _ramp(t: Float[Array, "*s"], num_timesteps: int) -> Float[Array, "*s"]:
    """0 at the first timestep, 1 at the last, and 0 before the first."""
    above = t * num_timesteps - 1.0
    return jnp.where(above < 0.0, 0.0, above) / (num_timesteps - 1)


def _check_sigmas(name: str, sigma_min: float, sigma_max: float, num_timesteps: int) -> None:
    if not 0.0 < sigma_min < sigma_max:
        raise ValueError(f"{name} needs 0 < sigma_min < sigma_max; got {sigma_min} and {sigma_max}")
    if num_timesteps < 2:
        raise ValueError(f"{name} needs at least two timesteps; got {num_timesteps}")
