"""The variational bound of diffusion models, and the loss by which the variance of steps is learnt.

With the steps from t to s = t − 1/T and Gaussians of diagonal variance (Ho et al. 2020, eq. 5),

    −log p(x0) <= KL(q(x_1|x0) ‖ p(x_1))
                  + sum over t > 1/T of KL(q(x_s|x_t, x0) ‖ p(x_s|x_t))
                  − log p(x0|x_{1/T})

The first term has nothing to be learnt and is left out. The least and the greatest variance of a step are
those of `DDPMSampler`, v_min = sigma_s²·(1 − r) and v_max = sigma_t²·(1 − r) with r = SNR(t)/SNR(s); a
network that learns the variance gives the fraction f of log v = (1 − f)·log v_min + f·log v_max
(Nichol & Dhariwal 2021, eq. 15).
"""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.scipy.special import log_ndtr
from jaxtyping import Array, Float

from diffusion_eqx._typing import Batch, Cond
from diffusion_eqx.denoiser import Backbone, Denoiser, Prediction
from diffusion_eqx.losses.base import AbstractLoss
from diffusion_eqx.losses.denoising import DenoisingLoss, no_network
from diffusion_eqx.losses.draws import Draws
from diffusion_eqx.schedules import AbstractSchedule, NoiseLevel, over

# Half the distance of two of 256 grey levels in [−1, 1].
_HALF_BIN = 1.0 / 255.0


class HybridLoss(AbstractLoss):
    """L_simple + vlb_weight·L_vlb (Nichol & Dhariwal 2021, eq. 16), for networks that learn the variance.

    `simple` judges the first half of the output's channels. L_vlb, the bound in bits per dimension, judges
    the second half only: the mean is held constant in it. `vlb_weight` is lambda.

    **Raises:** `ValueError` if the schedule has fewer than two timesteps, or `simple` trains other times.
    """

    simple: DenoisingLoss
    vlb_weight: float = eqx.field(static=True, default=1e-3)

    def __check_init__(self):
        if self.simple.shell.schedule.num_timesteps < 2:
            raise ValueError("learning the variance needs a schedule of at least two timesteps")
        if not self.simple.discrete:
            raise ValueError(
                "the variance is learnt of steps between timesteps, so that only these can be trained; "
                "make the loss as DenoisingLoss(..., discrete=True)"
            )

    def each(
        self, network: Backbone, x0: Batch, cond: Cond, draws: Draws
    ) -> Float[Array, " batch"]:
        """The loss of each clean example of a batch in [−1, 1], from one evaluation of the network."""
        noised = self.simple.noised(x0, cond, draws)
        output = self.simple.output(network, noised, draws)
        mean, variance = jnp.split(output, 2, axis=-1)
        frozen = jnp.concatenate([jax.lax.stop_gradient(mean), variance], axis=-1)
        shell = self.simple.shell
        schedule = shell.schedule
        denoiser = Denoiser(
            no_network, schedule, shell.parameterization, shell.null, learned_variance=True
        )
        predicted = denoiser.prediction(noised.x, noised.level, frozen)
        # A term over how often its timestep is drawn estimates the sum over timesteps.
        terms = bound_terms(schedule, x0, noised.level, predicted)
        bound = terms / self.simple.times.share(schedule, noised.level)
        return self.simple.of_output(mean, x0, noised, draws) + self.vlb_weight * bound

    def levels(self, draws: Draws) -> NoiseLevel:
        """The noise level of each row, (batch,)."""
        return self.simple.levels(draws)


def bound_terms(
    schedule: AbstractSchedule, x0: Batch, level: NoiseLevel, predicted: Prediction
) -> Float[Array, " batch"]:
    """The term of the bound that belongs to a level, in bits per dimension: (batch,).

    `level`: of shape (batch,), at timesteps. `predicted`: of the examples noised to it, with its
    `variance_fraction` f. With D = log v_max − log v_min and e the error of the predicted x0,

        KL = (f·D + exp(−f·D) − 1 + (SNR(s) − SNR(t))·e²·exp(−f·D))/2

    and at the first timestep t = 1/T, −log p(x0 | x) of pixels in 256 levels.

    **Raises:** `ValueError` if the prediction has no variance.
    """
    fraction = predicted.variance_fraction
    if fraction is None:
        raise ValueError(
            "the variational bound needs a prediction of the variance: a Denoiser with "
            "learned_variance=True"
        )
    step = 1.0 / schedule.num_timesteps
    first = level.time < 1.5 * step
    # v_min vanishes at the first timestep; that of the second stands in for it, as in the paper.
    later = schedule.at(jnp.where(first, 2.0 * step, level.time))
    before = schedule.at(jnp.where(first, step, level.time - step))
    log_min, log_max = _log_variances(later, before)
    span = over(log_max - log_min, x0)
    excess = fraction * span
    gain = -jnp.expm1(later.log_snr - before.log_snr) * jnp.exp(before.log_snr)
    shrink = jnp.exp(-excess)
    divergence = 0.5 * (excess + shrink - 1.0 + over(gain, x0) * (predicted.x0 - x0) ** 2 * shrink)
    least = schedule.at(jnp.full_like(level.time, step))
    log_first = 2.0 * jnp.log(least.sigma)
    log_variance = (1.0 - fraction) * over(log_min, x0) + fraction * over(log_first, x0)
    likelihood = discretized_log_likelihood(x0, predicted.x0, 0.5 * log_variance)
    axes = range(1, x0.ndim)
    nats = jnp.where(first, -likelihood.mean(axis=axes), divergence.mean(axis=axes))
    return nats / math.log(2.0)


def discretized_log_likelihood(x: Batch, mean: Batch, log_std: Batch) -> Batch:
    """log of the mass that N(mean, std²) gives the grey level of `x` (Ho et al. 2020, eq. 13).

    `x`: one of 256 levels in [−1, 1]; the level's interval reaches 1/255 to both sides, that of −1 and 1 to
    infinity. Shapes stay.
    """
    inverse_std = jnp.exp(-log_std)
    offset = x - mean
    # Both ends in the lower tail, where log Φ keeps its digits; the upper tail is its mirror image.
    near = (-jnp.abs(offset) + _HALF_BIN) * inverse_std
    far = (-jnp.abs(offset) - _HALF_BIN) * inverse_std
    share = -jnp.expm1(log_ndtr(far) - log_ndtr(near))
    # The floor is for intervals that rounding has emptied, whose logarithm would be infinite.
    inside = log_ndtr(near) + jnp.log(jnp.maximum(share, 1e-12))
    lowest = log_ndtr((offset + _HALF_BIN) * inverse_std)
    highest = log_ndtr((-offset + _HALF_BIN) * inverse_std)
    return jnp.where(x < -0.999, lowest, jnp.where(x > 0.999, highest, inside))


def _log_variances(t: NoiseLevel, s: NoiseLevel) -> tuple[Array, Array]:
    """log v_min and log v_max of the step from level t to s."""
    log_rest = jnp.log(-jnp.expm1(t.log_snr - s.log_snr))
    return 2.0 * jnp.log(s.sigma) + log_rest, 2.0 * jnp.log(t.sigma) + log_rest
