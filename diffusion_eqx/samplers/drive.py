"""Python's drivers of a sampler: the whole loop is one program under one jit."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from diffusion_eqx._typing import Batch, Cond, PRNGKey
from diffusion_eqx.samplers.base import AbstractSampler, Decoded, State
from diffusion_eqx.samplers.grid import Index
from diffusion_eqx.samplers.noise import image_keys


def advance(
    sampler: AbstractSampler, state: State, cond: Cond, *, begin: Index, end: Index, steps: Index
) -> State:
    """Steps begin … end − 1 of `steps`, as one loop. To be called under jit."""

    # With numbers that are known, jax makes this a scan, through which gradients flow.
    def body(index, state: State) -> State:
        return sampler.step(state, index, steps, cond)

    return jax.lax.fori_loop(begin, end, body, state)


@eqx.filter_jit
def sample(
    sampler: AbstractSampler,
    shape: tuple[int, ...],
    *,
    count: int,
    steps: Index,
    key: PRNGKey,
    cond: Cond = None,
    first: int = 0,
) -> Decoded:
    """Draw `count` samples in `steps` steps from noise of `shape` each.

    Returns (count, *shape), or what the sampler decodes that to. With `steps` an array, one compiled
    program serves every number of steps.

    Sample k depends on `key` and k alone: `count=16` gives the same as `count=8` and then `count=8,
    first=8`, up to rounding.
    """
    state = sampler.init(shape, steps, key=key, count=count, first=first)
    return sampler.finish(advance(sampler, state, cond, begin=0, end=steps, steps=steps))


@eqx.filter_jit
def sample_from(
    sampler: AbstractSampler, noise: Batch, *, steps: int, key: PRNGKey, cond: Cond = None
) -> Decoded:
    """Sample from given standard normal noise, one sample for each. Shapes as `sample`."""
    keys = image_keys(key, len(noise))
    state = sampler.start(noise, steps, keys=keys)
    return sampler.finish(advance(sampler, state, cond, begin=0, end=steps, steps=steps))


@eqx.filter_jit
def sample_between(
    sampler: AbstractSampler,
    x_t: Batch,
    *,
    begin: int,
    end: int,
    steps: int,
    key: PRNGKey,
    cond: Cond = None,
) -> Decoded:
    """Sample only between two points of the grid, for editing.

    `x_t`: examples as noisy as the grid's time at index `begin`. Returns them at index `end`, where
    `end=steps` is the clean end; shapes stay.

    **Raises:** `ValueError` unless 0 <= begin < end <= steps.
    """
    if not 0 <= begin < end <= steps:
        raise ValueError(
            f"begin and end must satisfy 0 <= begin < end <= steps={steps}; got {begin} and {end}"
        )
    state = sampler.resume(x_t, begin, steps, keys=image_keys(key, len(x_t)))
    return sampler.finish(advance(sampler, state, cond, begin=begin, end=end, steps=steps))


@eqx.filter_jit
def trajectory(
    sampler: AbstractSampler,
    shape: tuple[int, ...],
    *,
    count: int,
    steps: int,
    every: int,
    key: PRNGKey,
    cond: Cond = None,
) -> Float[Array, "snapshots batch *shape"]:
    """Sample, keeping a snapshot at the start, after every `every` steps, and at the end.

    Returns (1 + ceil(steps / every), count, *shape); the last snapshot equals `sample`'s result. Other
    states are never stored.

    **Raises:** `ValueError` unless 1 <= every <= steps.
    """
    if not 1 <= every <= steps:
        raise ValueError(f"every must be between 1 and steps={steps}; got {every}")
    whole, rest = divmod(steps, every)
    state = sampler.init(shape, steps, key=key, count=count)

    def chunk(state: State, begin) -> tuple[State, Decoded]:
        def body(offset, state: State) -> State:
            return sampler.step(state, begin + offset, steps, cond)

        state = jax.lax.fori_loop(0, every, body, state)
        return state, sampler.finish(state)

    begins = every * jnp.arange(whole, dtype=jnp.int32)
    first = sampler.finish(state)[None]
    state, snapshots = jax.lax.scan(chunk, state, begins)
    parts = [first, snapshots]
    if rest:
        state = advance(sampler, state, cond, begin=whole * every, end=steps, steps=steps)
        parts.append(sampler.finish(state)[None])
    return jnp.concatenate(parts)
