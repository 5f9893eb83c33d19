"""A mixture of Gaussians whose denoiser and probability flow are known: by a solver of our own for tests.

The reference is computed in double precision by scipy from the density's formula, with no line of the
library in it.
"""

import jax.numpy as jnp
import numpy as np
from scipy import integrate

from diffusion_eqx.denoiser import GaussianMixtureDenoiser

MEANS = np.array([[0.6, 0.6], [-0.6, 0.5], [0.0, -0.6]])
STDS = np.array([0.25, 0.3, 0.2])
WEIGHTS = np.array([0.5, 0.3, 0.2])


def mixture(schedule) -> GaussianMixtureDenoiser:
    arrays = (jnp.asarray(a, jnp.float32) for a in (WEIGHTS, MEANS, STDS))
    return GaussianMixtureDenoiser(*arrays, schedule)


def exact_eps(y: np.ndarray, s: float) -> np.ndarray:
    """−s·grad log of the density at y = x/alpha, noise s = sigma/alpha: shapes (N, 2)."""
    variance = STDS**2 + s**2
    offset = y[:, None] - MEANS
    log_weight = np.log(WEIGHTS) - np.log(variance) - 0.5 * (offset**2).sum(-1) / variance
    share = np.exp(log_weight - log_weight.max(1, keepdims=True))
    share /= share.sum(1, keepdims=True)
    return s * (share[..., None] * offset / variance[:, None]).sum(1)


def exact_flow(y: np.ndarray, s: float) -> np.ndarray:
    """Where dy/ds = eps takes y = x/alpha from noise s to 0."""
    solution = integrate.solve_ivp(
        lambda s, y: exact_eps(y.reshape(-1, 2), s).ravel(),
        (s, 0.0),
        y.astype(np.float64).ravel(),
        method="DOP853",
        rtol=1e-9,
        atol=1e-10,
    )
    assert solution.success
    return solution.y[:, -1].reshape(-1, 2)


def flow_from_noise(schedule, noise: np.ndarray) -> np.ndarray:
    """Where samples that begin at sigma(1)·noise should end."""
    one = jnp.asarray(1.0)
    s = float(schedule.sigma(one) / schedule.alpha(one))
    return exact_flow(np.asarray(noise) * s, s)


def true_samples(count: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    component = rng.choice(len(WEIGHTS), count, p=WEIGHTS)
    return MEANS[component] + STDS[component, None] * rng.standard_normal((count, 2))
