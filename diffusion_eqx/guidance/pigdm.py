"""Pseudo-inverse guidance."""

import equinox as eqx

from diffusion_eqx._typing import Time
from diffusion_eqx.denoiser import AbstractDenoiser
from diffusion_eqx.guidance.conjugate_gradient import conjugate_gradient
from diffusion_eqx.guidance.posterior import AbstractPosteriorGuidance, Measurement
from diffusion_eqx.schedules import like


class PseudoInverseGuidance(AbstractPosteriorGuidance):
    """ΠGDM (Song et al. 2023, eqs. 6-8): V = r²·I with r² = 1/(1/data_std² + alpha²/sigma²).

    That is the covariance of p(x0 | x_t) for data ~ N(m, data_std²·I), and then exact; their r² is that of
    `data_std=1`. v is found by `iterations` of conjugate gradients: of A and A^T only, which cost little
    beside the network. Where A·A^T is a multiple of the identity, as for masks and average pooling, one
    iteration is exact. A is linear.
    """

    denoiser: AbstractDenoiser
    measurement: Measurement
    data_std: float = eqx.field(static=True, default=1.0)
    iterations: int = eqx.field(static=True, default=10)

    def weigh(self, residual, t: Time, forward, adjoint, covariance):
        """v = (noise_std² + r²·A·A^T)^-1 residual."""
        ratio = self.schedule.alpha(t) / self.schedule.sigma(t)
        variance = like(1.0 / (1.0 / self.data_std**2 + ratio**2), residual)

        def apply(v):
            return self.measurement.noise_std**2 * v + variance * forward(adjoint(v))

        return conjugate_gradient(apply, residual, iterations=self.iterations)
