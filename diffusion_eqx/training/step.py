"""One training step: a pure function of a recipe, a state and a batch."""

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array

from diffusion_eqx._typing import Cond, Scalar
from diffusion_eqx.data import to_unit_range
from diffusion_eqx.training.parts import trainable
from diffusion_eqx.training.recipe import Recipe
from diffusion_eqx.training.state import Network, TrainState


def train_step(
    recipe: Recipe, state: TrainState[Network], images: Array, cond: Cond = None
) -> tuple[TrainState[Network], dict[str, Scalar]]:
    """One update from a batch.

    - `images`: uint8 0 … 255, or float: images in [−1, 1], latents or other examples; (batch, …).
    - `cond`: the condition of each example, or None.

    Returns the next state and the metrics `loss` and `grad_norm` (before clipping). If one of them is not
    finite, the next state is this one with `halted` set, and so is every state after it.

    The state's memory is donated: the given state must not be used again. The batch may be.
    """
    return _step((recipe, images, cond), state)


@eqx.filter_jit(donate="all-except-first")
def _step(kept: tuple[Recipe, Array, Cond], state: TrainState[Network]):
    recipe, images, cond = kept
    x0 = to_unit_range(images)
    key = jax.random.fold_in(state.key, state.step)
    parameters, rest = eqx.partition(state.network, trainable(state.network))

    def loss_of(parameters) -> Scalar:
        return recipe.loss(eqx.combine(parameters, rest), x0, cond, key=key)

    loss, grads = eqx.filter_value_and_grad(loss_of)(parameters)
    norm = optax.tree.norm(grads)
    # optax mixes types, which programs may have forbidden.
    with jax.numpy_dtype_promotion("standard"):
        updates, opt_state = recipe.optimizer.update(grads, state.opt_state, parameters)
    updated = eqx.apply_updates(parameters, updates)

    count = state.step // recipe.ema_update_every
    decay = jnp.minimum(recipe.ema_decay, (1 + count) / (10 + count))
    due = (state.step + 1) % recipe.ema_update_every == 0
    share = jnp.where(due, 1 - decay, 0)
    average = jax.tree.map(
        lambda old, new: old + share.astype(old.dtype) * (new - old), state.average, updated
    )

    ok = jnp.isfinite(loss) & jnp.isfinite(norm) & ~state.halted
    before = (parameters, state.average, state.opt_state, state.step, state.loss_sum)
    loss_sum = state.loss_sum + loss.astype(state.loss_sum.dtype)
    after = (updated, average, opt_state, state.step + 1, loss_sum)
    updated, average, opt_state, step, loss_sum = jax.tree.map(
        lambda new, old: jnp.where(ok, new, old) if eqx.is_array(new) else new, after, before
    )
    state = TrainState(
        eqx.combine(updated, rest), average, opt_state, step, loss_sum, ~ok, state.key
    )
    return state, {"loss": loss, "grad_norm": norm}
