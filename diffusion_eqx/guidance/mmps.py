"""Moment matching posterior sampling: the covariance of the prediction is that of the denoiser itself."""

import equinox as eqx

from diffusion_eqx._typing import Time
from diffusion_eqx.denoiser import AbstractDenoiser
from diffusion_eqx.guidance.conjugate_gradient import conjugate_gradient
from diffusion_eqx.guidance.posterior import AbstractPosteriorGuidance, Measurement


class MomentMatchingGuidance(AbstractPosteriorGuidance):
    """MMPS (Rozet et al. 2024, eqs. 15-20): V = (sigma²/alpha)·J^T, the covariance of p(x0 | x_t).

    Exact for Gaussian data of any covariance. v is found by `iterations` of conjugate gradients, each of
    which costs a gradient of the network; few suffice, as the measurement's noise and the samplers' many
    steps forgive the rest. The Jacobian of a trained network is not quite symmetric, which many iterations
    at little measurement noise would magnify.
    """

    denoiser: AbstractDenoiser
    measurement: Measurement
    iterations: int = eqx.field(static=True, default=3)

    def weigh(self, residual, t: Time, forward, adjoint, covariance):
        """v = (noise_std² + A·V·A^T)^-1 residual."""

        def apply(v):
            return self.measurement.noise_std**2 * v + forward(covariance(adjoint(v)))

        return conjugate_gradient(apply, residual, iterations=self.iterations)
