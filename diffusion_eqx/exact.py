"""Exact denoisers of known distributions: oracles for tests, documentation and research on samplers."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from diffusion_eqx._face import face as _face
from diffusion_eqx._typing import Batch, Cond
from diffusion_eqx.denoiser import AbstractDenoiser, Level, Prediction, as_level, plain
from diffusion_eqx.schedules import AbstractSchedule


class GaussianDenoiser(AbstractDenoiser):
    """Exact for data ~ N(mean, std²), independent in each coordinate.

    E[x0 | x] = mean + alpha·std²/(alpha²·std² + sigma²)·(x − alpha·mean).

    `mean` and `std` have the shape of one example.
    """

    mean: Float[Array, "*shape"]
    std: Float[Array, "*shape"]
    schedule: AbstractSchedule
    null: Cond = None

    def __call__(self, x: Batch, level: Level, cond: Cond = None) -> Prediction:
        """The posterior mean; `cond` is not used."""
        level = as_level(self.schedule, level).over(x)
        mean = jnp.broadcast_to(self.mean, x.shape[1:])[None]
        variance = jnp.broadcast_to(self.std, x.shape[1:])[None] ** 2
        offset = x - level.alpha * mean
        total = level.alpha**2 * variance + level.sigma**2
        # eps by its own formula: at little noise the difference x − alpha·x0 would have lost its digits.
        return Prediction(
            mean + level.alpha * variance / total * offset, level.sigma / total * offset
        )


class CorrelatedGaussianDenoiser(AbstractDenoiser):
    """Exact for data ~ N(mean, covariance), of any covariance between coordinates.

    E[x0 | x] = mean + alpha·C·(alpha²·C + sigma²·I)⁻¹·(x − alpha·mean), by the eigenvectors of C.

    - `mean`: of the shape of one example.
    - `variances`, `directions`: eigenvalues (d,) and eigenvectors (d, d), in columns, of the
      covariance of the flattened example. `CorrelatedGaussianDenoiser.of(mean, covariance,
      schedule)` finds them.
    """

    mean: Float[Array, "*shape"]
    variances: Float[Array, " d"]
    directions: Float[Array, "d d"]
    schedule: AbstractSchedule
    null: Cond = None

    @staticmethod
    def of(
        mean: Float[Array, "*shape"], covariance: Float[Array, "d d"], schedule: AbstractSchedule
    ) -> "CorrelatedGaussianDenoiser":
        """The denoiser of N(mean, covariance); `covariance` is that of the flattened example."""
        variances, directions = jnp.linalg.eigh(covariance)
        return CorrelatedGaussianDenoiser(mean, variances, directions, schedule)

    def __call__(self, x: Batch, level: Level, cond: Cond = None) -> Prediction:
        """The posterior mean; `cond` is not used."""
        level = as_level(self.schedule, level)
        offset = (x - level.over(x).alpha * self.mean[None]).reshape(len(x), -1)
        offset = offset @ self.directions
        level = level.over(offset)
        variances = self.variances[None]
        total = level.alpha**2 * variances + level.sigma**2
        x0 = (level.alpha * variances / total * offset) @ self.directions.T
        eps = (level.sigma / total * offset) @ self.directions.T
        return Prediction(self.mean[None] + x0.reshape(x.shape), eps.reshape(x.shape))


class GaussianMixtureDenoiser(AbstractDenoiser):
    """Exact for data from a mixture of isotropic Gaussians, sum_k weights_k·N(means_k, stds_k²·I).

    Let r_k(x) be the probability that x came from component k, which at the level is
    N(alpha·m_k, alpha²·s_k² + sigma²). Then

        E[x0 | x] = sum_k r_k·(m_k + alpha·s_k²/(alpha²·s_k² + sigma²)·(x − alpha·m_k)).

    - `weights` (components,), `means` (components, *shape), `stds` (components,).

    An integer condition picks one component for each example. A negative one, which is `null`,
    means the whole mixture.
    """

    weights: Float[Array, " components"]
    means: Float[Array, "components *shape"]
    stds: Float[Array, " components"]
    schedule: AbstractSchedule
    null: Cond = -1

    def __call__(self, x: Batch, level: Level, cond: Cond = None) -> Prediction:
        """The posterior mean."""
        flat = x.reshape(len(x), -1)  # (b, d)
        cond = plain(cond)
        level = as_level(self.schedule, level)
        alpha = jnp.broadcast_to(level.alpha, x.shape[:1])[:, None]  # (b, 1)
        sigma = jnp.broadcast_to(level.sigma, x.shape[:1])[:, None]
        components = self.means.reshape(1, len(self.means), -1)  # (1, k, d)
        variance = alpha**2 * self.stds[None] ** 2 + sigma**2  # (b, k)
        offset = flat[:, None, :] - alpha[:, :, None] * components  # (b, k, d)
        log_likelihood = -0.5 * (
            jnp.sum(offset**2, axis=-1) / variance + flat.shape[1] * jnp.log(variance)
        )
        log_prior = jnp.log(self.weights)[None]
        if cond is not None:
            chosen = jax.nn.one_hot(cond, len(self.weights), dtype=x.dtype)
            log_prior = jnp.where((cond < 0)[:, None], log_prior, jnp.log(chosen))
        share = jax.nn.softmax(log_likelihood + log_prior, axis=-1)[:, :, None]
        gain = (alpha * self.stds[None] ** 2 / variance)[:, :, None]
        x0 = jnp.sum(share * (components + gain * offset), axis=1)
        eps = jnp.sum(share * ((sigma / variance)[:, :, None] * offset), axis=1)
        return Prediction(x0.reshape(x.shape), eps.reshape(x.shape))


__dir__ = _face(globals())
