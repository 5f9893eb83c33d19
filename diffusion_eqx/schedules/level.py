"""How noisy an example is, as one value."""

from typing import TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from diffusion_eqx._typing import Batch

RealT = TypeVar("RealT", bound=float | Array)

# The log-SNR is kept within these, so that it and its slope are finite. Below, float32 loses the
# signal in the rounding of the noise. Above, there is no noise, and 1 − exp(−h) is 1 for a step of
# length h up to there.
LEAST_LOG_SNR, GREATEST_LOG_SNR = -34.0, 80.0


class NoiseLevel(eqx.Module):
    """A level of noise: a noisy example there is x = alpha·x0 + sigma·eps with eps ~ N(0, I).

    A schedule makes levels (`at`, `at_timestep`, `at_log_snr`, `at_ratio`). Every field has shape
    (), one level for all examples, or (batch,), one for each. Inside a sampler's step a level for
    each example has the axes of x instead, (batch, 1, …, 1), so that `level.alpha * x` means what
    it says.

    - `time`: in [0, 1]; 0 is clean, 1 is the most noise. It is a label, and what networks are told.
    - `alpha`, `sigma`: scale of the signal, standard deviation of the noise.
    - `log_snr`: log(alpha²/sigma²), kept within [−34, 80]; 80 where sigma is 0.
    """

    time: Float[Array, "*s"]
    alpha: Float[Array, "*s"]
    sigma: Float[Array, "*s"]
    log_snr: Float[Array, "*s"]

    @property
    def lam(self) -> Float[Array, "*s"]:
        """lambda = log(alpha/sigma), half the log-SNR, in which fast methods step."""
        return 0.5 * self.log_snr

    @property
    def clean(self) -> Bool[Array, "*s"]:
        """Whether there is no noise."""
        return self.sigma == 0.0

    def noised(self, x0: Batch, eps: Batch) -> Batch:
        """x = alpha·x0 + sigma·eps (Ho et al. 2020, eq. 4)."""
        level = self.over(x0)
        return level.alpha * x0 + level.sigma * eps

    def eps(self, x: Batch, x0: Batch) -> Batch:
        """The noise in `x` if the clean example is `x0`.

        (x − alpha·x0)/sigma. Not defined at a clean level.
        """
        level = self.over(x)
        return (x - level.alpha * x0) / level.sigma

    def x0(self, x: Batch, eps: Batch) -> Batch:
        """The clean example in `x` if the noise is `eps`.

        (x − sigma·eps)/alpha. Not defined without signal.
        """
        level = self.over(x)
        return (x - level.sigma * eps) / level.alpha

    def raised(self, x: Batch, below: "NoiseLevel", noise: Batch) -> Batch:
        """Examples of the cleaner level `below` with noise added up to this level, by the forward process.

        r·x + sqrt(sigma² − r²·sigma_below²)·noise with r = alpha/alpha_below.
        """
        level, below = self.over(x), below.over(x)
        ratio = level.alpha / below.alpha
        variance = level.sigma**2 - (ratio * below.sigma) ** 2
        return ratio * x + safe_sqrt(variance) * noise

    def where(self, mask: Bool[Array, "..."], other: "NoiseLevel") -> "NoiseLevel":
        """This level where the mask is true, else the other one."""
        return jax.tree.map(lambda a, b: jnp.where(mask, a, b), self, other)

    def over(self, x: Array) -> "NoiseLevel":
        """The level with the axes that it needs to multiply a batch `x`."""
        return jax.tree.map(lambda a: over(a, x), self)

    def flat(self) -> "NoiseLevel":
        """The level without the axes that `over` gave it: of shape () or (batch,)."""
        return jax.tree.map(lambda a: a.reshape(a.shape[:1]), self)

    def __getitem__(self, index) -> "NoiseLevel":
        """The levels at an index of the first axis."""
        return jax.tree.map(lambda a: a[index], self)


def over(number: RealT, x: Array) -> RealT:
    """Give one number for each example the axes that it needs to multiply a batch `x`.

    A number for all, of shape (), and one that has the axes already stay as they are.
    """
    if isinstance(number, int | float) or number.ndim == 0:
        return number
    return number.reshape(number.shape + (1,) * (x.ndim - number.ndim))


def safe_sqrt(value: Array) -> Array:
    """sqrt(value), 0 with a slope of 0 where the value is not above 0."""
    positive = value > 0.0
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, value, 1.0)), 0.0)


def safe_log(value: Array) -> Array:
    """log(value); a very negative number with a slope of 0 where the value is not above 0."""
    positive = value > 0.0
    return jnp.where(positive, jnp.log(jnp.where(positive, value, 1.0)), -1000.0)
