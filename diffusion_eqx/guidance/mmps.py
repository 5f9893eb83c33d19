"""Moment matching posterior sampling: the covariance of the prediction is that of the denoiser itself."""

import equinox as eqx

from diffusion_eqx._typing import Real
from diffusion_eqx._values import number
from diffusion_eqx.guidance.conjugate_gradient import conjugate_gradient
from diffusion_eqx.guidance.posterior import AbstractPosteriorGuidance, Operator
from diffusion_eqx.schedules import NoiseLevel, over


class MomentMatchingGuidance(AbstractPosteriorGuidance):
    """MMPS (Rozet et al. 2024, eqs. 15-20): V = (sigma²/alpha)·J^T, the covariance of p(x0 | x).

    Exact for Gaussian data of any covariance.

    - `noise_std`: standard deviation of the measurement's noise.
    - `iterations`: of conjugate gradients, each of which costs a gradient of the network. Few
      suffice: the measurement's noise and the samplers' many steps forgive the rest. The Jacobian
      of a trained network is not quite symmetric, which many iterations at little noise would
      magnify.
    """

    operator: Operator
    noise_std: Real = number(
        0.05, minimum=0.0, maximum=1e6, about="standard deviation of the measurement's noise"
    )
    iterations: int = eqx.field(static=True, default=3)

    def weigh(self, residual, level: NoiseLevel, forward, adjoint, covariance):
        """v = (noise_std² + A·V·A^T)^-1 residual."""

        def apply(v):
            return over(self.noise_std, v) ** 2 * v + forward(covariance(adjoint(v)))

        return conjugate_gradient(apply, residual, iterations=self.iterations)
