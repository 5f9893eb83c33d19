"""Closed forms of Gaussian data whose coordinates are correlated."""

import jax.numpy as jnp
import numpy as np

from diffusion_eqx.exact import CorrelatedGaussianDenoiser


def correlated(mean, covariance, schedule) -> CorrelatedGaussianDenoiser:
    """The exact denoiser of N(mean, covariance), from NumPy arrays."""
    arrays = (jnp.asarray(a, jnp.float32) for a in (mean, covariance))
    return CorrelatedGaussianDenoiser.of(*arrays, schedule)


def conditional(mean, covariance, matrix, value, noise_std) -> tuple[np.ndarray, np.ndarray]:
    """Mean and covariance of x ~ N(mean, covariance) given value = matrix·x + noise_std·z."""
    total = matrix @ covariance @ matrix.T + noise_std**2 * np.eye(len(matrix))
    gain = covariance @ matrix.T @ np.linalg.inv(total)
    return mean + gain @ (value - matrix @ mean), covariance - gain @ matrix @ covariance
