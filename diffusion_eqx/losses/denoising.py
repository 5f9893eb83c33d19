"""The denoising loss: error × weight × levels."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array

from diffusion_eqx._typing import Batch, Cond, PRNGKey, Scalar
from diffusion_eqx.denoiser import Backbone, Denoiser, fill_null, null_like, plain
from diffusion_eqx.losses.times import AbstractTimes, UniformTimes, stratified
from diffusion_eqx.losses.weights import AbstractWeight, Uniform
from diffusion_eqx.schedules import NoiseLevel

ERRORS: dict[str, Callable[[Array, Array], Array]] = {
    "mse": lambda output, target: (output - target) ** 2,
    "l1": lambda output, target: jnp.abs(output - target),
    "huber": lambda output, target: optax.losses.huber_loss(output, target),
}


class Noised(eqx.Module):
    """Noisy examples, the level and the noise of each, and the condition that goes with them."""

    x: Batch
    level: NoiseLevel
    eps: Batch
    cond: Cond


class DenoisingLoss(eqx.Module):
    """Mean weighted error of a network's output at random levels (Ho et al. 2020, algorithm 1).

    `loss(network, x0, cond, key=key)` is the loss of a batch of clean examples. It keeps no
    network: what is trained is given with each call.

    - `denoiser`: whose schedule, parameterization and null condition are those of the training.
    - `weight`: what the error at each level weighs.
    - `times`: which levels are trained.
    - `error`: one of `ERRORS`: `mse`, `l1` or `huber`.
    - `label_dropout`: the probability that an example's condition is replaced by the null
      condition, so that one network learns the conditional and the unconditional prediction (Ho &
      Salimans 2022, algorithm 1).

    **Raises:** `ValueError` for an unknown error, or a probability outside [0, 1).
    """

    shell: Denoiser
    weight: AbstractWeight
    times: AbstractTimes
    error: str = eqx.field(static=True)
    label_dropout: float = eqx.field(static=True)

    def __init__(
        self,
        denoiser: Denoiser,
        *,
        weight: AbstractWeight = Uniform(),
        times: AbstractTimes = UniformTimes(),
        error: str = "mse",
        label_dropout: float = 0.0,
    ):
        if error not in ERRORS:
            raise ValueError(f"unknown error {error!r}; choose one of {', '.join(ERRORS)}")
        if not 0.0 <= label_dropout < 1.0:
            raise ValueError(
                f"label_dropout is a probability, at least 0 and below 1; got {label_dropout}"
            )
        self.shell = Denoiser(
            no_network, denoiser.schedule, denoiser.parameterization, denoiser.null
        )
        self.weight = weight
        self.times = times
        self.error = error
        self.label_dropout = label_dropout

    def __call__(self, network: Backbone, x0: Batch, cond: Cond = None, *, key: PRNGKey) -> Scalar:
        """The loss of a batch of clean examples in [−1, 1].

        **Raises:** `ValueError` if conditions are to be dropped and the denoiser has no null condition.
        """
        key_noised, key_network = jax.random.split(key)
        noised = self.noised(x0, cond, key=key_noised)
        return self.of_output(self.output(network, noised, key=key_network), x0, noised)

    def noised(self, x0: Batch, cond: Cond, *, key: PRNGKey) -> Noised:
        """What the network is shown: examples noised to random levels, some of their conditions dropped."""
        key_time, key_noise, key_drop = jax.random.split(key, 3)
        level = self.times(self.shell.schedule, stratified(key_time, len(x0)))
        eps = jax.random.normal(key_noise, x0.shape, x0.dtype)
        cond = fill_null(plain(cond), self.shell.null, len(x0))
        if cond is not None and self.label_dropout > 0.0:
            cond = drop_cond(key_drop, cond, self.shell.null, self.label_dropout)
        return Noised(level.noised(x0, eps), level, eps, cond)

    def output(self, network: Backbone, noised: Noised, *, key: PRNGKey | None) -> Batch:
        """The network's output for noised examples."""
        return self.shell.network(network, noised.x, noised.level, noised.cond, key=key)

    def of_output(self, output: Batch, x0: Batch, noised: Noised) -> Scalar:
        """The mean weighted error of an output, of the shape of `x0`."""
        target = self.shell.target(noised.x, noised.level, x0)
        error = ERRORS[self.error](output, target).mean(axis=range(1, x0.ndim))
        c_out = self.shell.coefficients(noised.level).c_out
        return jnp.mean(self.weight(noised.level, c_out) * error)


def drop_cond(key: PRNGKey, cond: Cond, null: Cond, probability: float) -> Cond:
    """Replace the whole condition of an example by the null condition, with the given probability.

    **Raises:** `ValueError` if there is no null condition.
    """
    if null is None:
        raise ValueError(
            "conditions are to be dropped, but the denoiser has no condition that stands for "
            "none; give it as "
            "Denoiser(..., null=...), or set label_dropout=0"
        )
    batch = len(jax.tree.leaves(cond)[0])
    drop = jax.random.bernoulli(key, probability, (batch,))

    def replace(given: Array, nothing: Array) -> Array:
        return jnp.where(drop.reshape((batch,) + (1,) * (given.ndim - 1)), nothing, given)

    return jax.tree.map(replace, cond, null_like(cond, null))


def no_network(x: Batch, c_noise: Array, cond: Cond, *, key: Any) -> Batch:
    """Stands where a denoiser's network is given later.

    **Raises:** `RuntimeError`, always.
    """
    raise RuntimeError("a loss holds no network; it is given with each call")
