"""Moving averages of the weights: how much of the past each keeps."""

import dataclasses
import math
from abc import ABC, abstractmethod

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from diffusion_eqx._typing import Scalar


@dataclasses.dataclass(frozen=True)
class AbstractAverage(ABC):
    """An average a, moved towards the weights w at every `every`-th update of them: a ← d·a + (1 − d)·w.

    - `every`: updates of the weights between two moves.
    """

    every: int = 1

    @abstractmethod
    def decay(self, n: Int[Array, ""]) -> Scalar:
        """d of move number n = 0, 1, …"""


@dataclasses.dataclass(frozen=True)
class ExponentialAverage(AbstractAverage):
    """d = min(`target`, (1 + n)/(10 + n)), so that the random start is soon forgotten.

    - `target`: d once the average is warm.
    """

    target: float = 0.999

    @classmethod
    def of_halflife(cls, images: float, batch_size: int, every: int = 1) -> "ExponentialAverage":
        """The average in which weights of so many images ago count half: d = 2^(−every·batch/images)."""
        return cls(every, 2.0 ** (-every * batch_size / images))

    def decay(self, n: Int[Array, ""]) -> Scalar:
        """The formula of the class."""
        count = n.astype(jnp.float32)
        return jnp.minimum(self.target, (1.0 + count) / (10.0 + count))


@dataclasses.dataclass(frozen=True)
class PowerAverage(AbstractAverage):
    """The weights of move t count as t^gamma: d = (1 − 1/t)^(gamma + 1) (Karras et al. 2024, eq. 127).

    Its length is always the same share of the run so far, and it needs no warm-up.

    - `sigma_rel`: the standard deviation of that weighting, relative to the length of the run.

    **Raises:** `ValueError` unless 0 < sigma_rel < 0.28.
    """

    sigma_rel: float = 0.1

    def __post_init__(self):
        gamma_of(self.sigma_rel)

    def decay(self, n: Int[Array, ""]) -> Scalar:
        """The formula of the class, with t = n + 1."""
        t = n.astype(jnp.float32) + 1.0
        return (1.0 - 1.0 / t) ** (gamma_of(self.sigma_rel) + 1.0)


def gamma_of(sigma_rel: float) -> float:
    """gamma of a power-function average of relative width `sigma_rel` (Karras et al. 2024, eq. 126):

        sigma_rel = sqrt(gamma + 1)/((gamma + 2)·sqrt(gamma + 3))

    **Raises:** `ValueError` unless 0 < sigma_rel < 0.28, where there is no gamma > 0.
    """
    widest = 1.0 / (2.0 * math.sqrt(3.0))
    if not 0.0 < sigma_rel < widest:
        raise ValueError(
            f"the relative width of an average lies between 0 and {widest:.2f}; got {sigma_rel}"
        )
    inverse = sigma_rel**-2
    return float(np.roots([1.0, 7.0, 16.0 - inverse, 12.0 - inverse]).real.max())
