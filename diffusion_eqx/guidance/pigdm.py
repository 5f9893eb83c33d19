"""Pseudo-inverse guidance."""

import equinox as eqx

from diffusion_eqx._typing import Real
from diffusion_eqx._values import number
from diffusion_eqx.guidance.conjugate_gradient import conjugate_gradient
from diffusion_eqx.guidance.posterior import AbstractPosteriorGuidance, Operator
from diffusion_eqx.schedules import NoiseLevel, over


class PseudoInverseGuidance(AbstractPosteriorGuidance):
    """ΠGDM (Song et al. 2023, eqs. 6-8): V = r²·I with r² = 1/(1/data_std² + alpha²/sigma²).

    That is the covariance of p(x0 | x) for data ~ N(m, data_std²·I), and then exact. The r² of the
    paper is that of `data_std=1`. A is linear.

    - `noise_std`: standard deviation of the measurement's noise.
    - `data_std`: standard deviation of the data.
    - `iterations`: of conjugate gradients, of A and A^T only, which cost little beside the network.
      Where A·A^T is a multiple of the identity, as for masks and average pooling, one iteration is
      exact.
    """

    operator: Operator
    noise_std: Real = number(
        0.05, minimum=0.0, maximum=1e6, about="standard deviation of the measurement's noise"
    )
    data_std: Real = number(1.0, minimum=1e-6, maximum=1e6, about="standard deviation of the data")
    iterations: int = eqx.field(static=True, default=10)

    def weigh(self, residual, level: NoiseLevel, forward, adjoint, covariance):
        """v = (noise_std² + r²·A·A^T)^-1 residual."""
        ratio = level.alpha / level.sigma
        variance = over(1.0 / (1.0 / self.data_std**2 + ratio**2), residual)

        def apply(v):
            return over(self.noise_std, v) ** 2 * v + variance * forward(adjoint(v))

        return conjugate_gradient(apply, residual, iterations=self.iterations)
