"""Inverse problems: samples of x0 given a measurement y = A(x0) + noise, by guidance.

By Bayes' rule the score of p(x | y) is that of p(x) plus grad log p(y | x). Every method here takes
p(x0 | x) for a Gaussian around the prediction, whose gradient is, J being d x0(x)/dx,

    grad log p(y | x) = J^T A^T v,    v = (noise_std² + A V A^T)^-1 (y − A(x0)),

and so x0 + (sigma²/alpha)·J^T A^T v the guided prediction. They differ in V, the covariance of p(x0
| x), which is (sigma²/alpha)·J for an exact denoiser (Tweedie's second formula).

The measurement y is `cond["measurement"]`, with one entry for each example.
"""

from abc import abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from diffusion_eqx._typing import Batch, Cond
from diffusion_eqx.denoiser import AbstractDenoiser, Prediction
from diffusion_eqx.guidance.base import AbstractGuidance, take
from diffusion_eqx.schedules import NoiseLevel, over

# From a batch to a batch, of the same number of axes or not.
Linear = Callable[[Array], Array]
Operator = Callable[[Batch], Float[Array, "batch *measured"]]


class AbstractPosteriorGuidance(AbstractGuidance):
    """Guidance by a measurement; a method only weighs the residual.

    Cost: besides the prediction, its gradient in each call.

    - `operator`: A, from a batch of examples to a batch of measurements, each apart. It is linear;
      another one is replaced by its tangent at the prediction.
    """

    # A type checker takes an AbstractVar for an argument of __init__, a ClassVar not.
    if TYPE_CHECKING:
        operator: ClassVar[Operator]
    else:
        operator: eqx.AbstractVar[Operator]

    takes: ClassVar[tuple[str, ...]] = ("measurement",)

    def __call__(
        self, denoiser: AbstractDenoiser, x: Batch, level: NoiseLevel, cond: Cond
    ) -> Prediction:
        """The guided prediction; the rest of `cond` goes to the denoiser.

        **Raises:** `ValueError` if `cond` has no "measurement", or one of another shape than the
        operator gives.
        """
        own, rest = take(cond, self.takes)
        target = own["measurement"]

        def prediction(x: Batch) -> tuple[Batch, Prediction]:
            predicted = denoiser(x, level, rest)
            return predicted.x0, predicted

        x0, pullback, predicted = jax.vjp(prediction, x, has_aux=True)
        measured, forward = jax.linearize(self.operator, x0)
        if measured.shape != target.shape:
            raise ValueError(
                f"the measurement has shape {target.shape}, but the operator makes "
                f"{measured.shape} of examples "
                f"of shape {x0.shape}; give one measurement for each example"
            )
        transpose = jax.linear_transpose(forward, x0)
        # Where there is no signal, J is 0 and the covariance not to be found from it.
        some = level.alpha > 0.0
        unit = jnp.where(some, level.sigma**2 / jnp.where(some, level.alpha, 1.0), 0.0)
        unit = over(unit, x)

        def covariance(u: Batch) -> Batch:
            return unit * pullback(u)[0]

        def adjoint(v: Array) -> Batch:
            return transpose(v)[0]

        weighed = self.weigh(target - measured, level, forward, adjoint, covariance)
        return predicted.with_x0(x, level, x0 + covariance(adjoint(weighed)))

    @abstractmethod
    def weigh(
        self,
        residual: Float[Array, "batch *measured"],
        level: NoiseLevel,
        forward: Linear,
        adjoint: Linear,
        covariance: Linear,
    ) -> Float[Array, "batch *measured"]:
        """v of the residual y − A(x0). `forward` is A, `adjoint` A^T, `covariance` (sigma²/alpha)·J^T."""
