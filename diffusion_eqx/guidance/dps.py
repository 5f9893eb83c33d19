"""Diffusion posterior sampling: the measurement's error, descended."""

import jax.numpy as jnp

from diffusion_eqx._typing import Real, Time
from diffusion_eqx.denoiser import AbstractDenoiser
from diffusion_eqx.guidance.posterior import AbstractPosteriorGuidance, Measurement


class DPSGuidance(AbstractPosteriorGuidance):
    """DPS (Chung et al. 2023, algorithm 1): grad log p(y | x_t) = −scale·grad ||y − A(x0(x_t))||.

    The Gaussian p(x0 | x_t) shrinks to a point, and a step size takes the place of what that loses. So it
    is rough, never exact, but the cheapest, and asks nothing of A but a derivative. Their zeta is the step
    of one of T ancestral steps; `scale` is that of the score and means the same for every sampler and
    number of steps. It is to be tuned, and of the order of sqrt(number of measured values)/(standard
    deviation of y − A(x0)), in which the prediction's own uncertainty counts too.
    """

    denoiser: AbstractDenoiser
    measurement: Measurement
    scale: Real

    def weigh(self, residual, t: Time, forward, adjoint, covariance):
        """v = scale·residual/||residual||."""
        axes = tuple(range(1, residual.ndim))
        norm = jnp.sqrt(jnp.sum(residual**2, axis=axes, keepdims=True))
        return self.scale * residual / jnp.maximum(norm, jnp.finfo(residual.dtype).tiny)
