"""One training step: a pure, jitted function of a recipe, a state and a batch."""

from collections.abc import Callable
from typing import Any, Generic, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from diffusion_eqx._typing import Cond, PRNGKey, Scalar
from diffusion_eqx.config import DiffusionTrainingConfig
from diffusion_eqx.data import to_unit_range

# What is trained: a backbone, or an autoencoder, or any other module.
Network = TypeVar("Network")


class TrainState(eqx.Module, Generic[Network]):
    """All that changes while training. `key` does not change: step i uses fold_in(key, i)."""

    backbone: Network
    ema: Any
    opt_state: optax.OptState
    step: Int[Array, ""]
    key: PRNGKey


class Recipe(eqx.Module):
    """All that stays: the loss `(network, x0, cond, key=) -> scalar`, the optimiser and the average.

    The average follows the weights with a decay of min(ema_decay, (1 + n)/(10 + n)) at its n-th update,
    so that the random start is forgotten quickly.
    """

    loss: Callable[..., Scalar]
    optimizer: optax.GradientTransformation = eqx.field(static=True)
    ema_decay: float = eqx.field(static=True)
    ema_update_every: int = eqx.field(static=True)

    def init(self, backbone: Network, *, key: PRNGKey) -> TrainState[Network]:
        """The state before the first step. It shares no memory with `backbone`, which steps would reuse."""
        backbone = jax.tree.map(lambda a: jnp.copy(a) if eqx.is_array(a) else a, backbone)
        params = eqx.filter(backbone, eqx.is_inexact_array)
        return TrainState(
            backbone=backbone,
            # A copy: donating the state must not free the same buffer twice.
            ema=jax.tree.map(jnp.copy, params),
            opt_state=self.optimizer.init(params),
            step=jnp.zeros((), jnp.int32),
            key=key,
        )


def make_recipe(config: DiffusionTrainingConfig, loss: Callable[..., Scalar]) -> Recipe:
    """AdamW under a clipped gradient norm, its rate warmed up linearly and decayed by a cosine."""
    rate = optax.warmup_cosine_decay_schedule(
        init_value=0.0,
        peak_value=config.learning_rate,
        warmup_steps=config.warmup_steps,
        decay_steps=config.steps,
    )
    optimizer = optax.chain(
        optax.clip_by_global_norm(config.max_grad_norm),
        optax.adamw(rate, b2=0.99, weight_decay=config.weight_decay),
    )
    return Recipe(loss, optimizer, config.ema_decay, config.ema_update_every)


@eqx.filter_jit(donate="all-except-first")
def train_step(
    recipe: Recipe, state: TrainState[Network], images: Array, cond: Cond
) -> tuple[TrainState[Network], dict[str, Float[Array, ""]]]:
    """One update from a batch of images, uint8 or float in [−1, 1], or of latents, with their `cond`.

    Returns the next state and the metrics `loss` and `grad_norm` (before clipping). The given state's
    memory is reused: it must not be used again.
    """
    x0 = to_unit_range(images)
    key = jax.random.fold_in(state.key, state.step)
    loss, grads = eqx.filter_value_and_grad(recipe.loss)(state.backbone, x0, cond, key=key)
    params = eqx.filter(state.backbone, eqx.is_inexact_array)
    updates, opt_state = recipe.optimizer.update(grads, state.opt_state, params)
    backbone = eqx.apply_updates(state.backbone, updates)

    count = (state.step // recipe.ema_update_every).astype(jnp.float32)
    decay = jnp.minimum(recipe.ema_decay, (1.0 + count) / (10.0 + count))
    due = (state.step + 1) % recipe.ema_update_every == 0
    ema = optax.incremental_update(
        eqx.filter(backbone, eqx.is_inexact_array), state.ema, jnp.where(due, 1.0 - decay, 0.0)
    )
    metrics = {"loss": loss, "grad_norm": optax.tree.norm(grads)}
    return TrainState(backbone, ema, opt_state, state.step + 1, state.key), metrics


def averaged(state: TrainState[Network]) -> Network:
    """The network with the moving average for its weights: what to sample from, and to save."""
    return eqx.combine(state.ema, state.backbone)
