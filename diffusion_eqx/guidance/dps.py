"""Diffusion posterior sampling: the measurement's error, descended."""

import jax.numpy as jnp

from diffusion_eqx._typing import Real
from diffusion_eqx._values import number
from diffusion_eqx.guidance.posterior import AbstractPosteriorGuidance, Operator
from diffusion_eqx.schedules import NoiseLevel, over


class DPSGuidance(AbstractPosteriorGuidance):
    """DPS (Chung et al. 2023, algorithm 1): grad log p(y | x) = −scale·grad ||y − A(x0(x))||.

    The Gaussian p(x0 | x) shrinks to a point, and a step size takes the place of what that loses.
    So it is rough, never exact, but the cheapest, and asks nothing of A but a derivative. The zeta
    of the paper is the step of one of T ancestral steps; this scale is that of the score and means
    the same for every sampler and number of steps.

    - `measurement_scale`: to be tuned. It is of the order of sqrt(number of measured
      values)/(standard deviation of y − A(x0)), in which the prediction's own uncertainty counts
      too.
    """

    operator: Operator
    measurement_scale: Real = number(
        10.0, neutral=0.0, minimum=0.0, maximum=1e6, about="strength of the measurement's pull"
    )

    def weigh(self, residual, level: NoiseLevel, forward, adjoint, covariance):
        """v = scale·residual/||residual||."""
        axes = tuple(range(1, residual.ndim))
        norm = jnp.sqrt(jnp.sum(residual**2, axis=axes, keepdims=True))
        scale = over(self.measurement_scale, residual)
        return scale * residual / jnp.maximum(norm, jnp.finfo(residual.dtype).tiny)
