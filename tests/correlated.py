"""An exact denoiser of Gaussian data whose coordinates are correlated."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from diffusion_eqx.denoiser import AbstractExactDenoiser, Prediction
from diffusion_eqx.schedules import AbstractSchedule


class CorrelatedGaussianDenoiser(AbstractExactDenoiser):
    """For data ~ N(mean, vectors·diag(values)·vectors^T) over the coordinates in row-major order."""

    mean: Float[Array, " d"]
    values: Float[Array, " d"]
    vectors: Float[Array, "d d"]
    schedule: AbstractSchedule

    @staticmethod
    def of(mean, covariance, schedule) -> "CorrelatedGaussianDenoiser":
        values, vectors = np.linalg.eigh(covariance)
        arrays = (jnp.asarray(a, jnp.float32) for a in (mean, values, vectors))
        return CorrelatedGaussianDenoiser(*arrays, schedule)

    def __call__(self, x_t, t, cond=None, *, key=None):
        x = x_t.reshape(len(x_t), -1)
        t = jnp.broadcast_to(t, x_t.shape[:1])[:, None]
        alpha, sigma = self.schedule.alpha(t), self.schedule.sigma(t)
        gain = alpha * self.values / (alpha**2 * self.values + sigma**2)
        x0 = self.mean + (gain * ((x - alpha * self.mean) @ self.vectors)) @ self.vectors.T
        return Prediction.from_x0(self.schedule, x_t, t[:, 0], x0.reshape(x_t.shape))


def conditional(mean, covariance, matrix, value, noise_std) -> tuple[np.ndarray, np.ndarray]:
    """Mean and covariance of x ~ N(mean, covariance) given value = matrix·x + noise_std·z."""
    total = matrix @ covariance @ matrix.T + noise_std**2 * np.eye(len(matrix))
    gain = covariance @ matrix.T @ np.linalg.inv(total)
    return mean + gain @ (value - matrix @ mean), covariance - gain @ matrix @ covariance
