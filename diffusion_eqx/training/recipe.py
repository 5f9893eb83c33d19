"""What stays while a network is trained: loss, optimiser and average."""

import functools
import warnings
from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import optax

from diffusion_eqx._typing import PRNGKey, Scalar
from diffusion_eqx.config import TrainingConfig
from diffusion_eqx.training.parts import decayed, trainable
from diffusion_eqx.training.state import Network, TrainState


class Recipe(eqx.Module):
    """How a step is made. `make_recipe` makes one of a configuration and a loss.

    - `loss`: `(network, x0, cond, *, key) -> scalar`.
    - `optimizer`: any of optax.
    - `ema_decay`, `ema_update_every`: of the moving average of the weights. The n-th update has the decay
      min(ema_decay, (1 + n)/(10 + n)), so that the random start is soon forgotten.
    - `steps`: the length of run for which the optimiser's learning rate is planned; None if it fits any.
    """

    loss: Callable[..., Scalar]
    optimizer: optax.GradientTransformation = eqx.field(static=True)
    ema_decay: float = eqx.field(static=True)
    ema_update_every: int = eqx.field(static=True)
    steps: int | None = eqx.field(static=True, default=None)

    def init(self, network: Network, *, key: PRNGKey) -> TrainState[Network]:
        """The state before the first step. It shares no memory with `network`: steps reuse the state's."""
        network = jax.tree.map(lambda a: jnp.copy(a) if eqx.is_array(a) else a, network)
        parameters = eqx.filter(network, trainable(network))
        return TrainState(
            network=network,
            # A copy: donating the state must not free the same buffer twice.
            average=jax.tree.map(jnp.copy, parameters),
            opt_state=self.optimizer.init(parameters),
            step=jnp.zeros((), jnp.int32),
            loss_sum=jnp.zeros(()),
            halted=jnp.zeros((), bool),
            key=key,
        )


def make_recipe(
    config: TrainingConfig,
    loss: Callable[..., Scalar],
    optimizer: optax.GradientTransformation | None = None,
) -> Recipe:
    """The recipe of a configuration: AdamW under a clipped gradient norm, with a warm-up and a cosine.

    An `optimizer` of your own takes the place of both; what `config` says of learning rate, decay and
    clipping does not matter then.
    """
    average = (config.ema_decay, config.ema_update_every)
    if optimizer is not None:
        return Recipe(loss, optimizer, *average)
    return Recipe(loss, _adamw(_Numbers.of(config)), *average, steps=config.steps)


class _Numbers(NamedTuple):
    """What the optimiser needs of a configuration."""

    steps: int
    warmup: int
    learning_rate: float
    b1: float
    b2: float
    weight_decay: float
    max_grad_norm: float

    @classmethod
    def of(cls, config: TrainingConfig) -> "_Numbers":
        return cls(*(getattr(config, name) for name in cls._fields))


# Cached: an optimiser is part of the program of a step, and another object would be compiled anew.
@functools.lru_cache(maxsize=32)
def _adamw(numbers: _Numbers) -> optax.GradientTransformation:
    rate = optax.warmup_cosine_decay_schedule(
        init_value=0.0,
        peak_value=numbers.learning_rate,
        warmup_steps=numbers.warmup,
        decay_steps=numbers.steps,
    )
    adam = optax.adam(rate, b1=numbers.b1, b2=numbers.b2)
    if numbers.weight_decay > 0.0:
        adam = optax.adamw(
            rate,
            b1=numbers.b1,
            b2=numbers.b2,
            weight_decay=numbers.weight_decay,
            mask=_decay_mask,
        )
    return optax.chain(optax.clip_by_global_norm(numbers.max_grad_norm), adam)


def _decay_mask(parameters):
    """As `decayed`; a function, since optax would call a mask that is a module, modules being callable."""
    mask = decayed(parameters)
    if not any(jax.tree.leaves(mask)):
        warnings.warn(
            "weight_decay changes nothing: it acts on linear layers and convolutions of this library and "
            "of Equinox, and the network has none. Give make_recipe an optimizer of your own",
            stacklevel=2,
        )
    return mask
