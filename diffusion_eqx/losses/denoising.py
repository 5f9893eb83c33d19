"""The denoising loss: error × weight × levels."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from diffusion_eqx._typing import Batch, Cond
from diffusion_eqx.denoiser import Backbone, Denoiser, check_pair, fill_null, null_like, plain
from diffusion_eqx.losses.base import AbstractLoss
from diffusion_eqx.losses.draws import Draws
from diffusion_eqx.losses.errors import ERRORS
from diffusion_eqx.losses.times import AbstractTimes, UniformTimes
from diffusion_eqx.losses.weights import AbstractWeight, Uniform
from diffusion_eqx.parameterizations import AbstractParameterization
from diffusion_eqx.random_keys import DROP, NET, NOISE
from diffusion_eqx.schedules import NoiseLevel, over


class Noised(eqx.Module):
    """Noisy examples, the level and the noise of each, and the condition that goes with them."""

    x: Batch
    level: NoiseLevel
    eps: Batch
    cond: Cond


class DenoisingLoss(AbstractLoss):
    """Mean weighted error of a network's output at random levels (Ho et al. 2020, algorithm 1).

    Of each example, with the predicted clean example x0', at a level of log-SNR l,

        m·w(l)·c²·mean of error((x0' − x0)/c)

    The error is that of a quantity of which x0 is c times as far off: the network's output, or what `space`
    predicts. It is the space in which `Uniform` weighs alike and in which errors other than `mse` are
    measured; for `mse` and any other weight it changes nothing. m is 1, or 1/p(l) for a weight over the
    log-SNR (see `AbstractWeight.measure`).

    - `denoiser`: whose schedule, parameterization and null condition are those of the training. Its network
      is not kept: what is trained is given with each call.
    - `weight`: what the error at each level weighs.
    - `times`: which levels are trained.
    - `error`: one of `ERRORS`: `mse`, `l1`, `huber` or `pseudo_huber`.
    - `space`: the parameterization whose quantity is compared; None: the denoiser's own. A network that
      predicts x0 may so have the loss of v (Li & He 2025).
    - `discrete`: whether only timesteps are trained; None: as the schedule is.
    - `label_dropout`: the probability that an example's condition is replaced by the null condition, so
      that one network learns the conditional and the unconditional prediction (Ho & Salimans 2022,
      algorithm 1).

    **Raises:** `ValueError` for an unknown error, a probability outside [0, 1), or a space without finite
    coefficients at some level.
    """

    shell: Denoiser
    weight: AbstractWeight
    times: AbstractTimes
    space: AbstractParameterization | None
    error: str = eqx.field(static=True)
    discrete: bool = eqx.field(static=True)
    label_dropout: float = eqx.field(static=True)

    def __init__(
        self,
        denoiser: Denoiser,
        *,
        weight: AbstractWeight = Uniform(),
        times: AbstractTimes = UniformTimes(),
        error: str = "mse",
        space: AbstractParameterization | None = None,
        discrete: bool | None = None,
        label_dropout: float = 0.0,
    ):
        if error not in ERRORS:
            raise ValueError(f"unknown error {error!r}; choose one of {', '.join(ERRORS)}")
        if not 0.0 <= label_dropout < 1.0:
            raise ValueError(
                f"label_dropout is a probability, at least 0 and below 1; got {label_dropout}"
            )
        if space is not None:
            check_pair(denoiser.schedule, space)
        self.shell = Denoiser(
            no_network, denoiser.schedule, denoiser.parameterization, denoiser.null
        )
        self.weight = weight
        self.times = times
        self.space = None if space == denoiser.parameterization else space
        self.error = error
        self.discrete = denoiser.schedule.discrete if discrete is None else discrete
        self.label_dropout = label_dropout

    def each(
        self, network: Backbone, x0: Batch, cond: Cond, draws: Draws
    ) -> Float[Array, " batch"]:
        """The loss of each clean example of a batch in [−1, 1].

        **Raises:** `ValueError` if conditions are to be dropped and the denoiser has no null condition.
        """
        noised = self.noised(x0, cond, draws)
        return self.of_output(self.output(network, noised, draws), x0, noised, draws)

    def levels(self, draws: Draws) -> NoiseLevel:
        """The noise level of each row, (batch,)."""
        return self.times(self.shell.schedule, draws.uniforms(), discrete=self.discrete)

    def noised(self, x0: Batch, cond: Cond, draws: Draws) -> Noised:
        """What the network is shown: examples noised to random levels, some of their conditions dropped."""
        level = self.levels(draws)
        eps = draws.normal(NOISE, x0.shape[1:], x0.dtype)
        cond = fill_null(plain(cond), self.shell.null, len(x0))
        if cond is not None and self.label_dropout > 0.0:
            cond = drop_cond(draws, cond, self.shell.null, self.label_dropout)
        return Noised(level.noised(x0, eps), level, eps, cond)

    def output(self, network: Backbone, noised: Noised, draws: Draws) -> Batch:
        """The network's output for noised examples."""
        key = draws.keys(NET)
        return self.shell.network(network, noised.x, noised.level, noised.cond, key=key)

    def of_output(
        self, output: Batch, x0: Batch, noised: Noised, draws: Draws
    ) -> Float[Array, " batch"]:
        """The weighted error of each example's output, which is of the shape of `x0`."""
        level, schedule = noised.level, self.shell.schedule
        target = self.shell.target(noised.x, level, x0)
        c = self.shell.coefficients(level).c_out
        if self.space is not None:
            inner = self.space.coefficients(schedule, level).c_out
            ratio = over(c / inner, x0)
            output, target, c = ratio * output, ratio * target, inner
        error = ERRORS[self.error](output, target).mean(axis=range(1, x0.ndim))
        weight = self.weight(level, c)
        if self.weight.measure == "log_snr":
            weight = weight * self.times.log_snr_span(
                schedule, draws.uniforms(), discrete=self.discrete
            )
        return weight * error


def drop_cond(draws: Draws, cond: Cond, null: Cond, probability: float) -> Cond:
    """Replace the whole condition of an example by the null condition, with the given probability.

    **Raises:** `ValueError` if there is no null condition.
    """
    if null is None:
        raise ValueError(
            "conditions are to be dropped, but the denoiser has no condition that stands for "
            "none; give it as "
            "Denoiser(..., null=...), or set label_dropout=0"
        )
    drop = jax.vmap(lambda key: jax.random.bernoulli(key, probability))(draws.keys(DROP))

    def replace(given: Array, nothing: Array) -> Array:
        return jnp.where(drop.reshape((-1,) + (1,) * (given.ndim - 1)), nothing, given)

    return jax.tree.map(replace, cond, null_like(cond, null))


def no_network(x: Batch, c_noise: Array, cond: Cond, *, key: object) -> Batch:
    """Stands where a denoiser's network is given later.

    **Raises:** `RuntimeError`, always.
    """
    raise RuntimeError("a loss holds no network; it is given with each call")
