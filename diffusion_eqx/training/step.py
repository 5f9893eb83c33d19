"""One training step: a pure function of a recipe, a state and a batch."""

import dataclasses
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool

from diffusion_eqx._typing import Cond, Scalar
from diffusion_eqx.data import to_unit_range
from diffusion_eqx.losses import AbstractLoss, AdaptiveLoss, Draws, Seen
from diffusion_eqx.nn import rematerialized
from diffusion_eqx.precision import cast
from diffusion_eqx.random_keys import AUGMENT, NET
from diffusion_eqx.training.devices import Placement
from diffusion_eqx.training.parts import trainable
from diffusion_eqx.training.recipe import UNCERTAINTY_OPTIMIZER, Recipe
from diffusion_eqx.training.state import Learned, Metrics, Network, TrainState

# Overflows in a row at the least loss scale, after which float16 has diverged.
_PATIENCE = 10


def train_step(
    recipe: Recipe,
    state: TrainState[Network],
    images: Array,
    cond: Cond = None,
    *,
    placement: Placement | None = None,
) -> tuple[TrainState[Network], dict[str, Scalar]]:
    """One update from a batch.

    - `images`: uint8 0 … 255, or float: images in [−1, 1], latents or other examples; (batch, …).
    - `cond`: the condition of each example, or None.
    - `placement`: how state and batch lie on several devices; None: on one.

    Returns the next state and the metrics `loss` and `grad_norm` (before clipping). If one of them is not
    finite, the next state is this one with `halted` set, and so is every state after it. With float16 such
    a step is skipped instead: only `step` and the loss scale change.

    The state's memory is donated: the given state must not be used again. The batch may be.
    """
    return _step((recipe, images, cond, placement), state)


@eqx.filter_jit(donate="all-except-first")
def _step(kept: tuple[Recipe, Array, Cond, Placement | None], state: TrainState[Network]):
    recipe, images, cond, placement = kept
    x0 = to_unit_range(images)
    parameters, rest = eqx.partition(state.network, trainable(state.network))
    learned = state.learned
    trained = (parameters, None if learned is None else learned.uncertainty)
    scale = jnp.ones(()) if state.loss_scale is None else state.loss_scale.value

    def scaled_loss(trained: Any, part: tuple[Array, Cond, Array]):
        parameters, uncertainty = trained
        network = _computing(recipe, eqx.combine(parameters, rest))
        x0, cond, rows = part
        draws = Draws(state.root, state.step, rows, len(images))
        if recipe.augmentation is not None:
            x0 = recipe.augmentation(x0, draws.keys(AUGMENT))
        loss, plain, seen = _sums(recipe, learned, uncertainty, network, x0, cond, draws)
        return scale.astype(loss.dtype) * loss / len(images), (plain / len(images), seen)

    shards = 1 if placement is None else placement.devices
    total, grads, seen = _accumulated(recipe, scaled_loss, trained, (x0, cond), shards)
    grads = jax.tree.map(lambda grad: grad / scale.astype(grad.dtype), grads)
    grads, grads_of_uncertainty = grads
    norm = optax.tree.norm(grads)
    # optax mixes types, which programs may have forbidden.
    with jax.numpy_dtype_promotion("standard"):
        updates, opt_state = recipe.optimizer.update(grads, state.opt_state, parameters)
        updates = jax.tree.map(lambda u: (u * state.learning_rate_scale).astype(u.dtype), updates)
    updated = eqx.apply_updates(parameters, updates)
    ok = jnp.isfinite(total) & jnp.isfinite(norm) & ~state.halted
    metrics = Metrics(
        state.metrics.loss + total.astype(state.metrics.loss.dtype), state.metrics.steps + 1
    )
    after = (
        updated,
        _moved_averages(recipe, state, updated, opt_state),
        opt_state,
        state.updates + 1,
        metrics,
        _learned_after(learned, grads_of_uncertainty, seen),
    )
    before = (
        parameters,
        state.averages,
        state.opt_state,
        state.updates,
        state.metrics,
        learned,
    )
    updated, averages, opt_state, count, metrics, learned = jax.tree.map(
        lambda new, old: jnp.where(ok, new, old) if eqx.is_array(new) else new, after, before
    )
    loss_scale, halted = _scale_after(state, ok)
    state = TrainState(
        network=eqx.combine(updated, rest),
        averages=averages,
        opt_state=opt_state,
        step=jnp.where(halted, state.step, state.step + 1),
        updates=count,
        learning_rate_scale=state.learning_rate_scale,
        loss_scale=loss_scale,
        learned=learned,
        metrics=metrics,
        halted=halted,
        root=state.root,
    )
    if placement is not None:
        state = placement.held(state)
    return state, {"loss": total, "grad_norm": norm}


def _computing(recipe: Recipe, network: Any) -> Any:
    """The network in the precision in which it computes, and keeping what the recipe lets it keep."""
    network = network if recipe.compute is None else cast(network, recipe.compute)
    return rematerialized(network) if recipe.rematerialize else network


def _sums(
    recipe: Recipe,
    learned: Learned | None,
    uncertainty: Any,
    network: Any,
    x0: Array,
    cond: Cond,
    draws: Draws,
) -> tuple[Scalar, Scalar, Seen | None]:
    """The sums over some rows of what is minimised and of the loss that is reported, and what was seen."""
    loss = recipe.loss
    if isinstance(loss, AdaptiveLoss) and learned is not None:
        adaptive = dataclasses.replace(loss, uncertainty=uncertainty, importance=learned.importance)
        each, seen = adaptive.each_seen(network, x0, cond, draws)
        plain = seen.losses
        if learned.importance is not None:
            plain = plain * learned.importance.weight(seen.places)
        return jnp.sum(each), jnp.sum(plain), seen
    if isinstance(loss, AbstractLoss):
        value = jnp.sum(loss.each(network, x0, cond, draws))
    else:
        # Parts of a batch draw apart from each other, though not as the whole batch would.
        key = jax.random.fold_in(draws.key(NET), draws.rows[0])
        value = len(x0) * loss(network, x0, cond, key=key)
    return value, value, None


def _accumulated(recipe: Recipe, scaled_loss: Any, trained: Any, batch: Any, shards: int):
    """The reported loss, the gradient of the scaled one, and what was seen: sums over a batch's parts."""
    value_and_grad = eqx.filter_value_and_grad(scaled_loss, has_aux=True)
    count = len(batch[0])
    rows = jnp.arange(count, dtype=jnp.int32)
    parts = recipe.accumulation
    if parts == 1:
        (_, (plain, seen)), grads = value_and_grad(trained, (*batch, rows))
        return plain, grads, seen

    def cut(array: Array) -> Array:
        # Part j takes the j-th rows of each device, so that nothing moves between devices.
        each = count // (shards * parts)
        split = array.reshape(shards, parts, each, *array.shape[1:])
        return jnp.moveaxis(split, 1, 0).reshape(parts, shards * each, *array.shape[1:])

    def add(sums: Any, part: Any):
        (_, (plain, seen)), grads = value_and_grad(trained, part)
        return jax.tree.map(jnp.add, sums, (plain, grads)), seen

    zeros = jnp.zeros(()), jax.tree.map(jnp.zeros_like, eqx.filter(trained, eqx.is_inexact_array))
    (plain, grads), seen = jax.lax.scan(add, zeros, jax.tree.map(cut, (*batch, rows)))
    return plain, grads, jax.tree.map(lambda array: array.reshape(-1), seen)


def _moved_averages(
    recipe: Recipe, state: TrainState, updated: Any, opt_state: Any
) -> dict[str, Any]:
    """Each average after an update of the weights."""
    counted = updated if recipe.evaluation is None else recipe.evaluation(opt_state, updated)
    moved = {}
    for name, average in recipe.averages:
        decay = average.decay(state.updates // average.every)
        due = (state.updates + 1) % average.every == 0
        share = jnp.where(due, 1.0 - decay, 0.0)

        def move(old: Array, new: Array, share: Array = share) -> Array:
            return old + share.astype(old.dtype) * (new.astype(old.dtype) - old)

        moved[name] = jax.tree.map(move, state.averages[name], counted)
    return moved


def _learned_after(learned: Learned | None, grads: Any, seen: Seen | None) -> Learned | None:
    if learned is None or seen is None:
        return learned
    uncertainty, importance, opt_state = (
        learned.uncertainty,
        learned.importance,
        learned.opt_state,
    )
    if uncertainty is not None:
        with jax.numpy_dtype_promotion("standard"):
            updates, opt_state = UNCERTAINTY_OPTIMIZER.update(grads, opt_state)
        uncertainty = eqx.apply_updates(uncertainty, updates)
    if importance is not None:
        importance = importance.updated(seen.places, seen.losses)
    return Learned(uncertainty, importance, opt_state)


def _scale_after(state: TrainState, ok: Bool[Array, ""]) -> tuple[Any, Bool[Array, ""]]:
    """The loss scale, and whether the run has halted."""
    if state.loss_scale is None:
        return None, ~ok
    after = state.loss_scale.after(ok)
    halted = state.halted | after.exhausted(_PATIENCE)
    kept = jax.tree.map(lambda new, old: jnp.where(state.halted, old, new), after, state.loss_scale)
    return kept, halted
