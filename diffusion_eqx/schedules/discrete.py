"""Discrete variance-preserving schedules: linear, scaled linear, cosine and sigmoid betas.

A DDPM is given as betas, beta_k being the variance that timestep k adds, so that
alpha_bar_k = prod_{i <= k} (1 − beta_i). Seen in continuous time, log alpha_bar is interpolated
linearly between the nodes t = (k + 1)/T, with log alpha_bar = 0 at t = 0; one object thus serves the
integer and the continuous view. Where the last beta is 1, so that nothing of the signal is left at t = 1
(Lin et al. 2024), alpha_bar itself falls linearly to 0 over the last interval.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from diffusion_eqx.schedules.base import AbstractSchedule, unit_pair
from diffusion_eqx.schedules.level import safe_log, safe_sqrt


class DiscreteSchedule(AbstractSchedule):
    """alpha(t)² = alpha_bar(t), sigma(t)² = 1 − alpha_bar(t), from a table of log alpha_bar.

    `DiscreteSchedule(betas)` takes any betas in (0, 1), one for each timestep; the last may be 1.

    **Raises:** `ValueError` for other betas.
    """

    discrete = True
    log_alpha_bar: Float[Array, " nodes"]

    def __init__(self, betas: np.ndarray):
        """`betas`: shape (T,)."""
        betas = np.asarray(betas, dtype=np.float64)
        shaped = betas.ndim == 1 and len(betas) > 0
        if not (shaped and np.all((betas > 0) & (betas <= 1)) and np.all(betas[:-1] < 1)):
            raise ValueError(
                "betas must be a non-empty one-dimensional array of numbers between 0 and 1, both "
                f"excluded but for the last, which may be 1; got shape {betas.shape}"
                + (f" with values in [{betas.min()}, {betas.max()}]" if betas.size else "")
            )
        # In double precision: a float32 product of a thousand factors drifts by 1e-5.
        with np.errstate(divide="ignore"):
            nodes = np.concatenate([[0.0], np.cumsum(np.log1p(-betas))])
        self.log_alpha_bar = jnp.asarray(nodes, dtype=float)
        self.num_timesteps = len(betas)

    def _log_alpha_bar_at(self, t: Float[Array, "*s"]) -> Float[Array, "*s"]:
        # A node's own time gives the node itself: rounding of t·T would be magnified where the
        # table is steep.
        real = t * self.num_timesteps
        nearest = jnp.round(real)
        snapped = jnp.where(jnp.abs(real - nearest) <= self.num_timesteps * 2.0**-21, nearest, real)
        position = real + jax.lax.stop_gradient(snapped - real)
        left = jnp.clip(jnp.floor(position).astype(jnp.int32), 0, self.num_timesteps - 1)
        fraction = position - left.astype(position.dtype)
        table = self.log_alpha_bar.astype(t.dtype)
        begin, end = table[left], table[left + 1]
        to_zero = jnp.isneginf(end)
        inside = begin * (1.0 - fraction) + jnp.where(to_zero, begin, end) * fraction
        # The inner `where` keeps log's slope out of the derivative everywhere else.
        falling = begin + safe_log(1.0 - jnp.where(to_zero, fraction, 0.0))
        return jnp.where(to_zero, falling, inside)

    def alpha(self, t: Float[Array, "*s"]) -> Float[Array, "*s"]:
        """sqrt(alpha_bar(t))."""
        log_alpha_bar = self._log_alpha_bar_at(t)
        # `safe_log` stands for log 0 by −1000, whose exponential is not 0 in double precision.
        return jnp.where(log_alpha_bar > -500.0, jnp.exp(0.5 * log_alpha_bar), 0.0)

    def sigma(self, t: Float[Array, "*s"]) -> Float[Array, "*s"]:
        """sqrt(1 − alpha_bar(t)), without cancellation where alpha_bar is near 1."""
        return safe_sqrt(-jnp.expm1(self._log_alpha_bar_at(t)))

    def log_snr(self, t: Float[Array, "*s"]) -> Float[Array, "*s"]:
        """log(alpha_bar/(1 − alpha_bar)) at time t."""
        log_alpha_bar = self._log_alpha_bar_at(t)
        return log_alpha_bar - safe_log(-jnp.expm1(log_alpha_bar))

    def time_of_log_snr(self, log_snr: Float[Array, "*s"]) -> Float[Array, "*s"]:
        """The inverse of the interpolation, alpha_bar being the logistic function of the log-SNR."""
        wanted = -jax.nn.softplus(-log_snr)
        table = self.log_alpha_bar.astype(log_snr.dtype)
        right = jnp.searchsorted(-table, -jax.lax.stop_gradient(wanted), side="left")
        left = jnp.clip(right - 1, 0, self.num_timesteps - 1)
        begin, end = table[left], table[left + 1]
        to_zero = jnp.isneginf(end)
        linear = (begin - wanted) / (begin - jnp.where(to_zero, begin - 1.0, end))
        falling = -jnp.expm1(jnp.minimum(wanted - begin, 0.0))
        fraction = jnp.clip(jnp.where(to_zero, falling, linear), 0.0, 1.0)
        return (left.astype(log_snr.dtype) + fraction) / self.num_timesteps

    def pair_of_log_snr(
        self, log_snr: Float[Array, "*s"], time: Float[Array, "*s"]
    ) -> tuple[Float[Array, "*s"], Float[Array, "*s"]]:
        """(alpha, sigma) with alpha² + sigma² = 1."""
        return unit_pair(log_snr)


def linear_betas(num_timesteps: int, beta_start: float, beta_end: float) -> np.ndarray:
    """Betas of equal spacing (Ho et al. 2020, section 4). Returns shape (T,)."""
    return np.linspace(beta_start, beta_end, num_timesteps, dtype=np.float64)


def scaled_linear_betas(num_timesteps: int, beta_start: float, beta_end: float) -> np.ndarray:
    """Betas whose square roots have equal spacing (Rombach et al. 2022). Returns shape (T,)."""
    return np.linspace(beta_start**0.5, beta_end**0.5, num_timesteps, dtype=np.float64) ** 2


def cosine_betas(num_timesteps: int, offset: float = 0.008, max_beta: float = 0.999) -> np.ndarray:
    """Betas of alpha_bar(t) = cos²(π/2 · (t + s)/(1 + s)) (Nichol & Dhariwal 2021, eq. 17).

    `offset` is s; betas are capped at `max_beta`, since alpha_bar(1) would be 0. Returns shape (T,).
    """
    t = np.linspace(0.0, 1.0, num_timesteps + 1, dtype=np.float64)
    alpha_bar = np.cos((t + offset) / (1.0 + offset) * np.pi / 2.0) ** 2
    return np.minimum(1.0 - alpha_bar[1:] / alpha_bar[:-1], max_beta)


def sigmoid_betas(
    num_timesteps: int, beta_start: float, beta_end: float, steepness: float = 6.0
) -> np.ndarray:
    """Betas along a logistic curve from near `beta_start` to near `beta_end` (Xu et al. 2022, GeoDiff).

    beta = beta_start + (beta_end − beta_start)·logistic(x), x of equal spacing in ±`steepness`. Returns
    shape (T,).
    """
    x = np.linspace(-steepness, steepness, num_timesteps, dtype=np.float64)
    return beta_start + (beta_end - beta_start) / (1.0 + np.exp(-x))


def rescale_zero_terminal_snr(betas: np.ndarray) -> np.ndarray:
    """Change betas so that nothing of the signal is left at the end (Lin et al. 2024, algorithm 1).

    sqrt(alpha_bar) is shifted to end at 0 and scaled to begin where it did. Shapes (T,) to (T,); the last
    beta becomes 1.

    **Raises:** `ValueError` if there are fewer than two betas.
    """
    if len(betas) < 2:
        raise ValueError(f"rescaling needs at least two timesteps; got {len(betas)}")
    root = np.sqrt(np.cumprod(1.0 - np.asarray(betas, np.float64)))
    root = (root - root[-1]) * root[0] / (root[0] - root[-1])
    alpha_bar = root**2
    return np.concatenate([[1.0 - alpha_bar[0]], 1.0 - alpha_bar[1:] / alpha_bar[:-1]])
