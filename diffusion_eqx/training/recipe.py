"""What stays while a network is trained: loss, optimiser, averages and precision."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax

from diffusion_eqx._once import run_once
from diffusion_eqx._typing import PRNGKey, Scalar
from diffusion_eqx.config import TrainingConfig
from diffusion_eqx.data import Augmentation
from diffusion_eqx.losses import AdaptiveLoss
from diffusion_eqx.random_keys import INIT, STEP, role
from diffusion_eqx.training.averages import AbstractAverage, ExponentialAverage, PowerAverage
from diffusion_eqx.training.devices import Placement
from diffusion_eqx.training.loss_scale import LossScale
from diffusion_eqx.training.optimizers import build_optimizer, evaluation_weights
from diffusion_eqx.training.parts import trainable
from diffusion_eqx.training.state import EMA, Learned, Metrics, Network, TrainState

# The learning rate of what an adaptive loss learns of itself.
_UNCERTAINTY_RATE = 1e-2
UNCERTAINTY_OPTIMIZER = optax.adam(_UNCERTAINTY_RATE)


class Recipe(eqx.Module):
    """How a step is made. `make_recipe` makes one of a configuration and a loss.

    - `loss`: an `AbstractLoss`, or any function `(network, x0, cond, *, key) -> scalar`.
    - `optimizer`: any of optax.
    - `averages`: the moving averages of the weights by their names; `EMA` is among them.
    - `augmentation`: random changes of the images, or None.
    - `compute`: the dtype in which the network computes, or None for that of its weights.
    - `loss_scale_growth`: of the loss scale that float16 has.
    - `accumulation`: parts into which a batch is cut.
    - `rematerialize`: whether the backward pass computes anew what the forward pass gave.
    - `evaluation`: `(opt_state, parameters) -> parameters` to draw samples with; None if they are the same.
    - `steps`: the length of run for which the optimiser's learning rate is planned; None if it fits any.
    """

    loss: Callable[..., Scalar]
    optimizer: optax.GradientTransformation = eqx.field(static=True)
    averages: tuple[tuple[str, AbstractAverage], ...] = eqx.field(static=True)
    augmentation: Augmentation | None = None
    compute: np.dtype | None = eqx.field(static=True, default=None)
    loss_scale_growth: int = eqx.field(static=True, default=2000)
    accumulation: int = eqx.field(static=True, default=1)
    rematerialize: bool = eqx.field(static=True, default=False)
    evaluation: Callable[[Any, Any], Any] | None = eqx.field(static=True, default=None)
    steps: int | None = eqx.field(static=True, default=None)

    def init(self, network: Network, *, key: PRNGKey) -> TrainState[Network]:
        """The state before the first step. It shares no memory with `network`: steps reuse the state's."""
        state: Any = run_once(self._init, network, key=key)
        return state

    def _init(self, network: Network, *, key: PRNGKey) -> TrainState[Network]:
        network = jax.tree.map(lambda a: jnp.copy(a) if eqx.is_array(a) else a, network)
        parameters = eqx.filter(network, trainable(network))
        # Arrays of its own each, lest donating the state frees one buffer twice.
        return TrainState(
            network=network,
            averages={name: _wide_copy(parameters) for name, _ in self.averages},
            opt_state=self.optimizer.init(parameters),
            step=jnp.zeros((), jnp.int32),
            updates=jnp.zeros((), jnp.int32),
            learning_rate_scale=jnp.ones(()),
            loss_scale=self._loss_scale(),
            learned=self._learned(),
            metrics=Metrics(jnp.zeros(()), jnp.zeros((), jnp.int32)),
            halted=jnp.zeros((), bool),
            root=key,
        )

    def _loss_scale(self) -> LossScale | None:
        return LossScale.start(self.loss_scale_growth) if self.compute == np.float16 else None

    def _learned(self) -> Learned | None:
        if not isinstance(self.loss, AdaptiveLoss):
            return None
        uncertainty, importance = jax.tree.map(
            jnp.copy, (self.loss.uncertainty, self.loss.importance)
        )
        weights = eqx.filter(uncertainty, eqx.is_inexact_array)
        return Learned(uncertainty, importance, UNCERTAINTY_OPTIMIZER.init(weights))


def first_state(
    recipe: Recipe, network: Network, config: TrainingConfig, where: Placement
) -> TrainState[Network]:
    """The state before the first step of a run, on its devices."""
    return where.place(recipe.init(network, key=role(jax.random.key(config.seed), STEP)))


def make_recipe(
    config: TrainingConfig,
    loss: Callable[..., Scalar],
    optimizer: optax.GradientTransformation | None = None,
) -> Recipe:
    """The recipe of a configuration.

    An `optimizer` of your own takes the place of the configured one; what `config` says of learning rate,
    decay and clipping does not matter then. Where `config` asks for learned uncertainty or loss-aware
    times, the loss must be a `DenoisingLoss` or a `HybridLoss`.

    **Raises:** `TypeError` if it is another one.
    """
    own = optimizer is not None
    return Recipe(
        loss=_adaptive(config, loss),
        optimizer=build_optimizer(config) if optimizer is None else optimizer,
        averages=_averages(config),
        augmentation=_augmentation(config),
        compute=None if config.precision == "float32" else jnp.dtype(config.precision),
        loss_scale_growth=config.loss_scale_growth,
        accumulation=config.accumulation,
        rematerialize=config.rematerialize,
        evaluation=None if own else evaluation_weights(config),
        steps=config.steps if not own and config.rate_schedule == "cosine" else None,
    )


def _adaptive(config: TrainingConfig, loss: Callable[..., Scalar]) -> Callable[..., Scalar]:
    if not (config.learned_uncertainty or config.loss_aware_times):
        return loss
    return AdaptiveLoss.begin(
        loss,
        uncertainty=config.learned_uncertainty,
        importance=config.loss_aware_times,
        key=role(jax.random.key(config.seed), INIT),
    )


def _averages(config: TrainingConfig) -> tuple[tuple[str, AbstractAverage], ...]:
    every = config.ema_update_every
    if config.ema_halflife is None:
        ema = ExponentialAverage(every, config.ema_decay)
    else:
        ema = ExponentialAverage.of_halflife(config.ema_halflife, config.batch_size, every)
    powers = (PowerAverage(every, length) for length in config.ema_lengths)
    return (EMA, ema), *((power_name(power.sigma_rel), power) for power in powers)


def _augmentation(config: TrainingConfig) -> Augmentation | None:
    wanted = Augmentation(config.flip, config.shift, config.jitter)
    return None if wanted == Augmentation() else wanted


def power_name(sigma_rel: float) -> str:
    """The name of the average of a relative length."""
    return f"length-{sigma_rel:g}"


def _wide_copy(parameters: Any) -> Any:
    def copy(array: jax.Array) -> jax.Array:
        return jnp.copy(array.astype(jnp.promote_types(array.dtype, jnp.float32)))

    return jax.tree.map(copy, parameters)
