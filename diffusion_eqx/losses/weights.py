"""What the error at each noise level weighs.

Every weight is one of the squared error of x0, in snr = alpha²/sigma² and s = sigma/alpha. A squared error
of another quantity, of which x0 is c times as far off, then weighs c² as much. So one rule serves every
prediction of a network: with x0 = c_skip·x + c_out·F, c is c_out for the error of F.
"""

from abc import abstractmethod
from typing import ClassVar, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from diffusion_eqx._typing import Real
from diffusion_eqx._values import AbstractValue, real
from diffusion_eqx.schedules import NoiseLevel

PerLevel = Float[Array, "..."]


class AbstractWeight(AbstractValue):
    """`weight(level, c)`: what the squared error of a quantity weighs, x0 being c times as far off.

    - `measure`: over what the weighted error is averaged. `times`: over the levels as they are trained, so
      that other training times are another weighting. `log_snr`: over the log-SNR, whatever the times are;
      the loss divides by their density, and other times change its variance only.
    """

    measure: ClassVar[Literal["times", "log_snr"]] = "times"

    @abstractmethod
    def __call__(self, level: NoiseLevel, c: PerLevel) -> PerLevel:
        """The weight at each level, of the level's shape."""


class Uniform(AbstractWeight):
    """1: every error counts the same (for epsilon: L_simple of Ho et al. 2020, eq. 14)."""

    def __call__(self, level: NoiseLevel, c: PerLevel) -> PerLevel:
        """1."""
        return jnp.ones_like(level.log_snr)


class SNR(AbstractWeight):
    """snr on the error of x0, which is 1 on that of eps (Salimans & Ho 2022, section 4)."""

    def __call__(self, level: NoiseLevel, c: PerLevel) -> PerLevel:
        """snr·c²."""
        return jnp.exp(level.log_snr) * c**2


class MinSNR(AbstractWeight):
    """min(snr, gamma) on the error of x0 (Hang et al. 2023, eq. 8).

    For the output this is min(snr, gamma)/snr if it is eps, and min(snr, gamma)/(snr + 1) if it is v.
    """

    gamma: Real = real(5.0)

    def __call__(self, level: NoiseLevel, c: PerLevel) -> PerLevel:
        """min(snr, gamma)·c²."""
        return jnp.minimum(jnp.exp(level.log_snr), self.gamma) * c**2


class SoftMinSNR(AbstractWeight):
    """snr·gamma/(snr + gamma) on the error of x0: `MinSNR` without its kink (Crowson et al. 2024)."""

    gamma: Real = real(5.0)

    def __call__(self, level: NoiseLevel, c: PerLevel) -> PerLevel:
        """c²/(1/gamma + 1/snr)."""
        return c**2 / (1.0 / self.gamma + jnp.exp(-level.log_snr))


class EDMWeight(AbstractWeight):
    """(s² + sd²)/(s·sd)² on the error of x0, sd being `sigma_data` (Karras et al. 2022, table 1).

    For `EDMPrediction` of the same sd it is 1 on the error of the output.
    """

    sigma_data: Real = real(0.5)

    def __call__(self, level: NoiseLevel, c: PerLevel) -> PerLevel:
        """(1/sd² + snr)·c²."""
        return (1.0 / self.sigma_data**2 + jnp.exp(level.log_snr)) * c**2


class SigmoidWeight(AbstractWeight):
    """sigmoid(bias − log snr) on the error of eps, over the log-SNR (Hoogeboom et al. 2024, eq. 4).

    Larger images need a smaller bias: their noise hides less.
    """

    measure = "log_snr"
    bias: Real = real(-1.0)

    def __call__(self, level: NoiseLevel, c: PerLevel) -> PerLevel:
        """snr·sigmoid(bias − log snr)·c²."""
        return jnp.exp(level.log_snr) * jax.nn.sigmoid(self.bias - level.log_snr) * c**2


class P2(AbstractWeight):
    """1/(k + snr)^gamma on the error of eps (Choi et al. 2022, eq. 8)."""

    gamma: Real = real(1.0)
    k: Real = real(1.0)

    def __call__(self, level: NoiseLevel, c: PerLevel) -> PerLevel:
        """snr/(k + snr)^gamma·c²."""
        snr = jnp.exp(level.log_snr)
        return snr / (self.k + snr) ** self.gamma * c**2


class Debiased(AbstractWeight):
    """1/sqrt(snr) on the error of eps, and sqrt(snr) on that of x0 (Yu et al. 2023, eq. 11)."""

    def __call__(self, level: NoiseLevel, c: PerLevel) -> PerLevel:
        """sqrt(snr)·c²."""
        return jnp.exp(level.lam) * c**2
