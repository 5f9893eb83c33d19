"""The denoising loss: which noise levels are trained, how far off counts, and what each level weighs."""

from abc import abstractmethod
from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int

from diffusion_eqx._typing import Batch, Cond, PRNGKey, Scalar, Time
from diffusion_eqx.denoiser import Backbone
from diffusion_eqx.parameterization import AbstractParameterization
from diffusion_eqx.schedules import AbstractSchedule, like


class AbstractWeight(eqx.Module):
    """Weight of the error of the network's output at each noise level.

    A weight w(log_snr) on the squared error of x0 is w·c_out² on that of the output F, since
    x0 = c_skip·x_t + c_out·F; so one rule serves every parameterization.
    """

    @abstractmethod
    def __call__(self, log_snr: Time, c_out: Time) -> Time:
        """The weight of F's error, of the shape of `log_snr`."""


class UniformWeight(AbstractWeight):
    """Every output error counts the same (for epsilon: L_simple of Ho et al. 2020, eq. 14)."""

    def __call__(self, log_snr: Time, c_out: Time) -> Time:
        """1."""
        return jnp.ones_like(log_snr)


class SNRWeight(AbstractWeight):
    """Error of x0 weighted by the signal-to-noise ratio (Salimans & Ho 2022, section 4)."""

    def __call__(self, log_snr: Time, c_out: Time) -> Time:
        """snr·c_out²."""
        return jnp.exp(log_snr) * c_out**2


class MinSNRWeight(AbstractWeight):
    """Error of x0 weighted by min(snr, gamma) (Hang et al. 2023, eq. 8).

    On the output this is min(snr, gamma)/snr for epsilon and min(snr, gamma)/(snr + 1) for v.
    """

    gamma: float = eqx.field(static=True, default=5.0)

    def __call__(self, log_snr: Time, c_out: Time) -> Time:
        """min(snr, gamma)·c_out²."""
        return jnp.minimum(jnp.exp(log_snr), self.gamma) * c_out**2


ERRORS: dict[str, Callable[[Array, Array], Array]] = {
    "mse": lambda output, target: (output - target) ** 2,
    "l1": lambda output, target: jnp.abs(output - target),
    "huber": lambda output, target: optax.losses.huber_loss(output, target),
}


class Noised(NamedTuple):
    """Noisy examples, the time of each, and the conditioning that goes with them."""

    x_t: Batch
    t: Time
    cond: Cond


class DenoisingLoss(eqx.Module):
    """Mean weighted error of a backbone's output at random timesteps (Ho et al. 2020, algorithm 1).

    `error` names one of `ERRORS`. With probability `label_dropout` an example's `cond` is replaced by
    `null_cond`, so that one network learns the conditional and the unconditional prediction
    (Ho & Salimans 2022, algorithm 1).
    """

    schedule: AbstractSchedule
    parameterization: AbstractParameterization
    weight: AbstractWeight = UniformWeight()
    error: str = eqx.field(static=True, default="mse")
    label_dropout: float = eqx.field(static=True, default=0.0)
    null_cond: Cond = None

    def __call__(self, backbone: Backbone, x0: Batch, cond: Cond = None, *, key: PRNGKey) -> Scalar:
        """The loss of a batch of clean examples in [−1, 1]."""
        key_noised, key_network = jax.random.split(key)
        noised = self.noised(x0, cond, key=key_noised)
        return self.of_output(self.output(backbone, noised, key=key_network), x0, noised)

    def noised(self, x0: Batch, cond: Cond, *, key: PRNGKey) -> Noised:
        """What the backbone is shown: examples noised to random timesteps, some `cond` dropped."""
        key_time, key_noise, key_drop = jax.random.split(key, 3)
        t = self.schedule.time(stratified_timesteps(key_time, len(x0), self.schedule.num_timesteps))
        noise = jax.random.normal(key_noise, x0.shape, x0.dtype)
        if cond is not None and self.label_dropout > 0.0:
            cond = drop_cond(key_drop, cond, self.null_cond, self.label_dropout)
        return Noised(self.schedule.perturb(x0, t, noise), t, cond)

    def output(self, backbone: Backbone, noised: Noised, *, key: PRNGKey | None) -> Batch:
        """The backbone's output for noised examples."""
        c = self.parameterization.coefficients(self.schedule, noised.t)
        return backbone(like(c.c_in, noised.x_t) * noised.x_t, c.c_noise, noised.cond, key=key)

    def of_output(self, output: Batch, x0: Batch, noised: Noised) -> Scalar:
        """The mean weighted error of an output, of the shape of `x0`."""
        x_t, t = noised.x_t, noised.t
        c = self.parameterization.coefficients(self.schedule, t)
        target = (x0 - like(c.c_skip, x_t) * x_t) / like(c.c_out, x_t)
        error = ERRORS[self.error](output, target).mean(axis=range(1, x0.ndim))
        return jnp.mean(self.weight(self.schedule.log_snr(t), c.c_out) * error)


def stratified_timesteps(key: PRNGKey, count: int, num_timesteps: int | Int[Array, ""]) -> Array:
    """Integer timesteps, uniform in 0 … T−1, spread evenly over the batch.

    One random offset and equal spacing: each timestep is as likely as when drawn independently, but
    the loss of a batch varies less (Kingma et al. 2021, appendix I.1). Returns int32 (count,).
    """
    offset = jax.random.uniform(key)
    fractions = (offset + jnp.arange(count)) / count
    timesteps = jnp.floor(fractions * num_timesteps).astype(jnp.int32)
    return jnp.minimum(timesteps, num_timesteps - 1)


def drop_cond(key: PRNGKey, cond: Cond, null_cond: Cond, probability: float) -> Cond:
    """Replace whole examples' conditioning by `null_cond` with the given probability."""
    batch = len(jax.tree.leaves(cond)[0])
    drop = jax.random.bernoulli(key, probability, (batch,))

    def replace(c: Array, null: Array | int | float) -> Array:
        return jnp.where(
            drop.reshape((batch,) + (1,) * (c.ndim - 1)), jnp.asarray(null, c.dtype), c
        )

    return jax.tree.map(replace, cond, null_cond)
