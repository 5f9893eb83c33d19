"""Inverse problems: samples of x0 given a measurement y = A(x0) + noise, by guidance.

By Bayes' rule the score of p(x_t | y) is that of p(x_t) plus grad log p(y | x_t). Every method here takes
p(x0 | x_t) for a Gaussian around the prediction, whose gradient is, J being d x0(x_t)/d x_t,

    grad log p(y | x_t) = J^T A^T v,    v = (noise_std² + A V A^T)^-1 (y − A(x0)),

and so x0 + (sigma²/alpha)·J^T A^T v the guided prediction. They differ in V, the covariance of
p(x0 | x_t), which is (sigma²/alpha)·J for an exact denoiser (Tweedie's second formula).
"""

from abc import abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from diffusion_eqx._typing import Batch, Cond, PRNGKey, Real, Time
from diffusion_eqx.denoiser import Prediction
from diffusion_eqx.guidance.base import AbstractGuidance
from diffusion_eqx.schedules import like

# From a batch to a batch, of the same number of axes or not.
Linear = Callable[[Array], Array]


class Measurement(eqx.Module):
    """What was measured: `value` = operator(x0) + noise_std·z with z ~ N(0, I).

    `operator` maps a batch of examples to a batch of measurements, each apart; it is linear (another one
    is replaced by its tangent at the prediction). `value` has one entry for each example, or one for all.
    """

    value: Float[Array, "batch *measured"]
    operator: Callable[[Batch], Float[Array, "batch *measured"]]
    noise_std: Real


class AbstractPosteriorGuidance(AbstractGuidance):
    """Guidance by a measurement. A method only weighs the residual.

    Cost: besides the prediction, its gradient in each call.
    """

    # A type checker takes an AbstractVar for an argument of __init__, a ClassVar not.
    if TYPE_CHECKING:
        measurement: ClassVar[Measurement]
    else:
        measurement: eqx.AbstractVar[Measurement]

    keeps_pair: ClassVar[bool] = True

    def __call__(
        self, x_t: Batch, t: Time, cond: Cond = None, *, key: PRNGKey | None = None
    ) -> Prediction:
        """The guided prediction; `cond` goes to the wrapped denoiser.

        **Raises:** `ValueError` if there are measurements of another number of examples.
        """
        target = self.measurement.value
        # Inside classifier-free guidance the batch is doubled.
        if len(x_t) % len(target):
            raise ValueError(
                f"there are measurements of {len(target)} examples, but {len(x_t)} are drawn; give one "
                "measurement for each, or one for all"
            )
        target = jnp.concatenate([target] * (len(x_t) // len(target)))

        def prediction(x: Batch) -> tuple[Batch, Prediction]:
            predicted = self.denoiser(x, t, cond, key=key)
            return predicted.x0, predicted

        x0, pullback, predicted = jax.vjp(prediction, x_t, has_aux=True)
        measured, forward = jax.linearize(self.measurement.operator, x0)
        transpose = jax.linear_transpose(forward, x0)
        alpha, sigma = self.schedule.alpha(t), self.schedule.sigma(t)
        # Where there is no signal, J is 0 and the covariance not to be found from it.
        unit = like(jnp.where(alpha > 0.0, sigma**2 / jnp.maximum(alpha, 1e-12), 0.0), x_t)

        def covariance(u: Batch) -> Batch:
            return unit * pullback(u)[0]

        def adjoint(v: Array) -> Batch:
            return transpose(v)[0]

        weighed = self.weigh(target - measured, t, forward, adjoint, covariance)
        x0 = x0 + covariance(adjoint(weighed))
        return Prediction.from_x0(self.schedule, x_t, t, x0, predicted.variance_fraction)

    @abstractmethod
    def weigh(
        self,
        residual: Float[Array, "batch *measured"],
        t: Time,
        forward: Linear,
        adjoint: Linear,
        covariance: Linear,
    ) -> Float[Array, "batch *measured"]:
        """v of the residual y − A(x0). `forward` is A, `adjoint` A^T, `covariance` (sigma²/alpha)·J^T."""
