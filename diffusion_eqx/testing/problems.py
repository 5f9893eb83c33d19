"""Problems with a known answer, computed without a line of the library's samplers."""

import jax
import jax.numpy as jnp
import numpy as np

from diffusion_eqx.exact import GaussianMixtureDenoiser
from diffusion_eqx.schedules import AbstractSchedule

# Three Gaussians in the plane.
MEANS = np.array([[0.6, 0.6], [-0.6, 0.5], [0.0, -0.6]])
STDS = np.array([0.25, 0.3, 0.2])
WEIGHTS = np.array([0.5, 0.3, 0.2])


def three_gaussians(schedule: AbstractSchedule, spread: float = 1.0) -> GaussianMixtureDenoiser:
    """The exact denoiser of a mixture of three Gaussians in the plane, of `spread` times their
    deviation.
    """
    with jax.ensure_compile_time_eval():
        weights, means = jnp.asarray(WEIGHTS, float), jnp.asarray(MEANS, float)
        return GaussianMixtureDenoiser(weights, means, jnp.asarray(spread * STDS, float), schedule)


def exact_eps(y: np.ndarray, s: float) -> np.ndarray:
    """The noise in y = x/alpha of the three Gaussians, where s = sigma/alpha: (n, 2) to (n, 2).

    −s·grad log p(y), p being the density of the noisy mixture.
    """
    variance = STDS**2 + s**2
    offset = y[:, None] - MEANS
    log_weight = np.log(WEIGHTS) - np.log(variance) - 0.5 * (offset**2).sum(-1) / variance
    share = np.exp(log_weight - log_weight.max(1, keepdims=True))
    share /= share.sum(1, keepdims=True)
    return s * (share[..., None] * offset / variance[:, None]).sum(1)


def exact_flow(y: np.ndarray, s: float, end: float = 0.0) -> np.ndarray:
    """Where the probability flow dy/ds = eps takes y = x/alpha from noise s to noise `end`: (n, 2)
    to (n, 2).

    By an explicit Runge-Kutta method of order 8 in double precision.
    """
    from scipy import integrate

    solution = integrate.solve_ivp(
        lambda s, y: exact_eps(y.reshape(-1, 2), s).ravel(),
        (s, end),
        np.asarray(y, np.float64).ravel(),
        method="DOP853",
        rtol=1e-12,
        atol=1e-13,
    )
    assert solution.success
    return solution.y[:, -1].reshape(-1, 2)


def true_samples(count: int, seed: int, spread: float = 1.0) -> np.ndarray:
    """Samples of the three Gaussians: (count, 2)."""
    rng = np.random.default_rng(seed)
    component = rng.choice(len(WEIGHTS), count, p=WEIGHTS)
    noise = rng.standard_normal((count, 2))
    return MEANS[component] + spread * STDS[component, None] * noise
