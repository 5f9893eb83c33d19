"""What stays while a network is trained: loss, optimiser and average."""

import warnings
from collections.abc import Callable

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
    rate = optax.warmup_cosine_decay_schedule(
        init_value=0.0,
        peak_value=config.learning_rate,
        warmup_steps=config.warmup,
        decay_steps=config.steps,
    )
    optimizer = optax.chain(
        optax.clip_by_global_norm(config.max_grad_norm),
        optax.adamw(
            rate, b1=config.b1, b2=config.b2, weight_decay=config.weight_decay, mask=_decay_mask
        )
        if config.weight_decay > 0.0
        else optax.adam(rate, b1=config.b1, b2=config.b2),
    )
    return Recipe(loss, optimizer, *average, steps=config.steps)


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
