"""Python's drivers of a sampler: the whole loop is one program."""

import dataclasses
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from diffusion_eqx._typing import Batch, BatchKeys, Cond, PRNGKey
from diffusion_eqx._values import as_arrays, check_kind, is_traced, numbers
from diffusion_eqx.denoiser import AbstractDenoiser
from diffusion_eqx.guidance import AbstractGuidance, Guided
from diffusion_eqx.samplers.base import AbstractSampler, Bound, Walk, check_pair_kept
from diffusion_eqx.samplers.devices import split_over_devices
from diffusion_eqx.samplers.noise import draw, image_keys
from diffusion_eqx.samplers.per_example import check_one_for_all, set_apart
from diffusion_eqx.samplers.state import State, check_moved

Steps = int | Int[Array, ""]
Decoded = Float[Array, "batch *decoded"]
Decode = Callable[[Batch], Decoded]
Guidance = AbstractGuidance | tuple[AbstractGuidance, ...] | None


class _Run(eqx.Module):
    """What all examples of a run share. Python numbers and functions here decide the program."""

    denoiser: AbstractDenoiser
    sampler: AbstractSampler
    decode: Decode | None
    steps: Steps
    begin: int
    end: Steps
    every: int | None
    shape: tuple[int, ...]
    skips: bool


class _Examples(eqx.Module):
    """What each example of a run has of its own.

    `noise` to begin with, or noisy examples `x`, or neither. `numbers` are those of the guidance.
    """

    keys: BatchKeys
    cond: Cond
    noise: Batch | None = None
    x: Batch | None = None
    numbers: AbstractDenoiser | None = None


def sample(
    denoiser: AbstractDenoiser,
    sampler: AbstractSampler,
    shape: tuple[int, ...],
    *,
    count: int,
    steps: Steps,
    key: PRNGKey,
    cond: Cond = None,
    guidance: Guidance = None,
    first: int | Int[Array, ""] = 0,
    decode: Decode | None = None,
) -> Decoded:
    """Draw `count` samples in `steps` steps from noise of `shape` each.

    Sample k depends on `key` and k alone: `count=16` gives the same as `count=8` and then `count=8,
    first=8`, up to rounding. The examples are divided over all local devices. Numbers of the
    sampler, the guidance and the schedule cost no new compile.

    - `steps`: an array makes one program for every number of steps, through which no gradient flows
      backwards.
    - `cond`: a bare array, or a dict of arrays by name, with one entry for each example or one for all.
    - `guidance`: one or several, the innermost first, around the denoiser. Its numbers may be arrays
      (count,), one for each example.
    - `first`: the number of the first sample.
    - `decode`: what is applied to the samples in the same program.

    Returns (count, *shape), or what `decode` makes of that.

    **Raises:** `ValueError` if count, steps, key or cond do not fit, or for guidance that the
    sampler would misread; `TypeError` for what is no denoiser or no sampler, and if the sampler's step
    gives another kind of state than it was given; `ArithmeticError` if an adaptive sampler needs more
    steps than it may take.
    """
    if not isinstance(count, int) or count < 1:
        raise ValueError(f"count must be a whole number of samples, at least 1; got {count}")
    examples = _Examples(image_keys(_checked_key(key), count, first), fit_cond(cond, count))
    run, examples = _plan(examples, denoiser, sampler, guidance, steps, decode, shape=tuple(shape))
    return _arrived(sampler, split_over_devices(_sampled, run, examples))


def sample_from(
    denoiser: AbstractDenoiser,
    sampler: AbstractSampler,
    noise: Batch,
    *,
    steps: Steps,
    key: PRNGKey | None = None,
    cond: Cond = None,
    guidance: Guidance = None,
    decode: Decode | None = None,
) -> Decoded:
    """Sample from given standard normal noise, one sample for each; otherwise as `sample`.

    `key`: for samplers that draw more noise on the way.

    **Raises:** `ValueError` as `sample`, or if the sampler draws noise and there is no key.
    """
    keys = image_keys(_key_for(sampler, key), len(noise))
    examples = _Examples(keys, fit_cond(cond, len(noise)), noise=noise)
    run, examples = _plan(
        examples, denoiser, sampler, guidance, steps, decode, shape=noise.shape[1:]
    )
    return _arrived(sampler, split_over_devices(_sampled, run, examples))


def sample_between(
    denoiser: AbstractDenoiser,
    sampler: AbstractSampler,
    x: Batch,
    *,
    begin: int,
    end: int,
    steps: int,
    key: PRNGKey | None = None,
    cond: Cond = None,
    guidance: Guidance = None,
    decode: Decode | None = None,
) -> Decoded:
    """Sample only between two points of the grid, for editing; otherwise as `sample_from`.

    `x`: examples as noisy as the grid's level at index `begin`. Returns them at index `end`, where
    `end=steps` is the clean end.

    **Raises:** `ValueError` as `sample_from`, or unless 0 <= begin < end <= steps.
    """
    if not 0 <= begin < end <= steps:
        raise ValueError(
            f"begin and end must satisfy 0 <= begin < end <= steps={steps}; got {begin} and {end}"
        )
    keys = image_keys(_key_for(sampler, key), len(x))
    examples = _Examples(keys, fit_cond(cond, len(x)), x=x)
    run, examples = _plan(
        examples,
        denoiser,
        sampler,
        guidance,
        steps,
        decode,
        shape=x.shape[1:],
        begin=begin,
        end=end,
    )
    return _arrived(sampler, split_over_devices(_sampled, run, examples))


def trajectory(
    denoiser: AbstractDenoiser,
    sampler: AbstractSampler,
    shape: tuple[int, ...],
    *,
    count: int,
    steps: int,
    every: int,
    key: PRNGKey,
    cond: Cond = None,
    guidance: Guidance = None,
    first: int | Int[Array, ""] = 0,
    decode: Decode | None = None,
) -> Float[Array, "snapshots batch *decoded"]:
    """Sample, keeping a snapshot at the start, after every `every` steps, and at the end; otherwise
    as `sample`.

    Returns (1 + ceil(steps/every), count, *shape). The last snapshot equals the result of `sample`.
    Other states are never stored.

    **Raises:** `ValueError` as `sample`, or unless 1 <= every <= steps.
    """
    if not 1 <= every <= steps:
        raise ValueError(f"every must be between 1 and steps={steps}; got {every}")
    if not isinstance(count, int) or count < 1:
        raise ValueError(f"count must be a whole number of samples, at least 1; got {count}")
    examples = _Examples(image_keys(_checked_key(key), count, first), fit_cond(cond, count))
    run, examples = _plan(
        examples, denoiser, sampler, guidance, steps, decode, shape=tuple(shape), every=every
    )
    return split_over_devices(_snapshots, run, examples, axis=1)


def begin_from_noise(
    sampler: AbstractSampler, denoise: Bound, walk: Walk, noise: Batch, *, keys: BatchKeys
) -> State:
    """The state at the walk's first level: x = sigma·noise, of the shape of `noise`."""
    index = jnp.zeros_like(walk.steps)
    x = walk[index].over(noise).sigma * noise
    return sampler.begin(denoise, walk, x, index, keys=keys)


def fit_cond(cond: Cond, count: int) -> Cond:
    """The condition with one entry for each of `count` examples; an entry for all is repeated.

    **Raises:** `ValueError` naming a part that has another number of entries.
    """

    def fit(path: tuple[Any, ...], leaf: Any) -> Array:
        array = jnp.asarray(leaf)
        name = jax.tree_util.keystr(path) or ""
        entries = 1 if array.ndim == 0 else array.shape[0]
        if entries not in (1, count):
            raise ValueError(
                f"cond{name} has {entries} entries, but {count} examples are drawn; give one "
                "for each, or one for all"
            )
        array = array[None] if array.ndim == 0 else array
        return jnp.broadcast_to(array, (count, *array.shape[1:]))

    return jax.tree_util.tree_map_with_path(fit, cond)


def _plan(
    examples: _Examples,
    denoiser: AbstractDenoiser,
    sampler: AbstractSampler,
    guidance: Guidance,
    steps: Steps,
    decode: Decode | None,
    *,
    shape: tuple[int, ...],
    begin: int = 0,
    end: Steps | None = None,
    every: int | None = None,
) -> tuple[_Run, _Examples]:
    check_kind(
        sampler,
        AbstractSampler,
        "the sampler must be one such as DDIMSampler(), or find_sampler(name)",
    )
    check_kind(
        denoiser,
        AbstractDenoiser,
        "a denoiser is wanted",
        ". Of a model that is model.denoiser, and model.sample does the rest",
    )
    denoiser = eqx.nn.inference_mode(denoiser)
    if guidance is not None and guidance != ():
        denoiser = Guided(denoiser, guidance)
    check_pair_kept(sampler, denoiser)
    check_one_for_all(sampler)
    denoiser, own = set_apart(denoiser, len(examples.keys))
    if isinstance(steps, int | np.integer):
        steps = int(steps)
        sampler.grid.check(denoiser.schedule, steps)
    known = all(isinstance(number.value, float) for number in numbers(sampler).values())
    run = _Run(
        as_arrays(denoiser),
        as_arrays(sampler),
        decode,
        steps,
        begin,
        steps if end is None else end,
        every,
        shape,
        # A number that came as an array may be differentiated by, through which a branch would cut.
        skips=known,
    )
    return run, dataclasses.replace(examples, numbers=own)


def _start(run: _Run, examples: _Examples) -> tuple[Bound, Walk, State]:
    denoiser = run.denoiser
    if examples.numbers is not None:
        denoiser = eqx.combine(denoiser, examples.numbers)
    denoise = Bound(denoiser, examples.cond, run.skips)
    walk = Walk.of(run.sampler.grid, run.denoiser.schedule, run.steps)
    if examples.x is not None:
        index = jnp.asarray(run.begin, jnp.int32)
        return (
            denoise,
            walk,
            run.sampler.begin(denoise, walk, examples.x, index, keys=examples.keys),
        )
    noise = draw(examples.keys, 0, run.shape) if examples.noise is None else examples.noise
    state = begin_from_noise(run.sampler, denoise, walk, noise, keys=examples.keys)
    return denoise, walk, state


def _steps(run: _Run, denoise: Bound, walk: Walk, state: State, begin: Any, end: Any) -> State:
    # With numbers that are known, jax makes this a scan, through which gradients flow.
    def body(_: Any, state: State) -> State:
        moved = run.sampler.advance(denoise, walk, state)
        check_moved(run.sampler, state, moved)
        return moved

    return jax.lax.fori_loop(begin, end, body, state)


def _finished(run: _Run, state: State) -> Decoded:
    return state.x if run.decode is None else run.decode(state.x)


def _sampled(run: _Run, examples: _Examples) -> Decoded:
    denoise, walk, state = _start(run, examples)
    return _finished(run, _steps(run, denoise, walk, state, run.begin, run.end))


def _snapshots(run: _Run, examples: _Examples) -> Float[Array, "snapshots batch *decoded"]:
    denoise, walk, state = _start(run, examples)
    assert isinstance(run.steps, int)
    assert run.every is not None
    whole, rest = divmod(run.steps, run.every)

    def chunk(state: State, _: None) -> tuple[State, Decoded]:
        state = _steps(run, denoise, walk, state, 0, run.every)
        return state, _finished(run, state)

    first = _finished(run, state)[None]
    state, snapshots = jax.lax.scan(chunk, state, None, length=whole)
    parts = [first, snapshots]
    if rest:
        state = _steps(run, denoise, walk, state, 0, rest)
        parts.append(_finished(run, state)[None])
    return jnp.concatenate(parts)


def _arrived(sampler: AbstractSampler, samples: Decoded) -> Decoded:
    """The samples, if those of a sampler that chooses its levels have all arrived."""
    if not sampler.chooses_levels or is_traced(samples):
        return samples
    lost = int(jnp.sum(~jnp.isfinite(samples.reshape(len(samples), -1)).all(axis=1)))
    if lost:
        raise ArithmeticError(
            f"{lost} of {len(samples)} samples did not arrive in the steps allowed to "
            f"{type(sampler).__name__}; allow "
            "more steps, or a larger tolerance (rtol and atol)"
        )
    return samples


def _checked_key(key: Any) -> PRNGKey:
    if hasattr(key, "dtype") and jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
        return key
    raw = getattr(key, "dtype", None) == jnp.uint32
    what = "the words of a key, as of jax.random.PRNGKey" if raw else f"a {type(key).__name__}"
    raise ValueError(f"key must be a random key, made by jax.random.key(seed); got {what}")


def _key_for(sampler: AbstractSampler, key: PRNGKey | None) -> PRNGKey:
    if key is not None:
        return _checked_key(key)
    if not sampler.deterministic:
        raise ValueError(
            f"{type(sampler).__name__} draws noise on the way; give key=jax.random.key(seed)"
        )
    # The key decides nothing then.
    return jax.random.key(0)
