"""A sampler that fills in a part of each example and keeps the rest."""

import dataclasses
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from diffusion_eqx._typing import Batch, BatchKeys
from diffusion_eqx.guidance import take
from diffusion_eqx.samplers import (
    AbstractGrid,
    AbstractNoise,
    AbstractSampler,
    Bound,
    State,
    Walk,
    draw,
)
from diffusion_eqx.schedules import NoiseLevel, over

# The names in `cond` of what is known: clean examples, and masks that are 1 where they are to be filled in.
KNOWN, KNOWN_MASK = "known", "known_mask"

# Roles of an example's key: for the noise of what is known, plus the step's index; and for repetitions.
# They are apart from those of the samplers, which are the index, 2^29 plus the index, and 2^30.
_KNOWN_NOISE = 3 * 2**28
_AGAIN = 2**31 - 2


class InpaintingSampler(AbstractSampler):
    """Any sampler that remembers nothing, made to fill in what a mask marks and to keep the rest.

    After each step to a level s, what is known of the examples replaces what was drawn there, noised to s:

        x_s ← mask·x_s + (1 − mask)·(alpha_s·known + sigma_s·z)

    (Song et al. 2021, appendix I.2). At the clean level that is what is known itself. By this alone, what
    is filled in sees the known part only through noise, and fits too little. RePaint (Lugmayr et al. 2022,
    algorithm 1) therefore goes back: after every `jump` steps, counted from the start, the example is
    noised to the level before them, and they are taken again, until they have been taken `resample` times.
    Cost: up to `resample` times that of the sampler within.

    What is known comes in the condition, one for each example or one for all:

    - `cond["known"]`: clean examples.
    - `cond["known_mask"]`: 1 (or true) where the example is to be filled in, 0 where it is kept. An axis of
      length 1 stands for all.

    Its fields:

    - `sampler`: the one within, which has the grid and the noise too.
    - `resample`: how often each step is taken. 1 is replacement alone.
    - `jump`: steps between two returns. Let it divide the number of steps, since the last ones count too.

    **Raises:** `ValueError` for a sampler that uses the steps before, which replacing and going back break;
    for one that chooses its own levels; or if `resample` or `jump` is below 1.
    """

    sampler: AbstractSampler
    resample: int = eqx.field(static=True)
    jump: int = eqx.field(static=True)

    evaluations: ClassVar[int | None] = None
    reference: ClassVar[str] = "Song et al. 2021, appendix I.2; Lugmayr et al. 2022, algorithm 1"
    about: ClassVar[str] = (
        "replacement of what is known after each step, with RePaint's repetitions"
    )
    use: ClassVar[str] = "inpainting"

    def __init__(
        self,
        sampler: AbstractSampler,
        resample: int = 1,
        jump: int = 1,
        *,
        grid: AbstractGrid | None = None,
        noise: AbstractNoise | None = None,
    ):
        given = {"grid": grid, "noise": noise}
        given = {name: value for name, value in given.items() if value is not None}
        self.sampler = dataclasses.replace(sampler, **given) if given else sampler
        self.grid, self.noise = self.sampler.grid, self.sampler.noise
        self.resample, self.jump = resample, jump

    def __check_init__(self):
        name = type(self.sampler).__name__
        advice = "use one that does not, such as DDIMSampler or DDPMSampler"
        if not takes_single_steps(self.sampler):
            why = (
                "remembers earlier steps, which inpainting breaks"
                if self.sampler.remembers
                else "goes its own way along the levels, which inpainting must do"
            )
            raise ValueError(f"{name} {why}; {advice}")
        for field in ("resample", "jump"):
            if getattr(self, field) < 1:
                raise ValueError(f"{field} must be at least 1; got {getattr(self, field)}")

    @property
    def deterministic(self) -> bool:
        """Never: noise is drawn for what is known."""
        return False

    @property
    def renoises(self) -> bool:
        """Whether the sampler within adds noise back by the predicted eps."""
        return self.sampler.renoises

    def init(self, denoise: Bound, x: Batch, t: NoiseLevel, s: NoiseLevel) -> Any:
        """What the sampler within carries along.

        **Raises:** `ValueError` if the condition lacks what is known, or that does not fit the examples.
        """
        known, mask, within = _parted(denoise)
        _check_fit(known, mask, x)
        return self.sampler.init(within, x, t, s)

    def step(self, denoise: Bound, state: State, t: NoiseLevel, s: NoiseLevel) -> State:
        """One step of the sampler within, and replacement of what is known."""
        known, mask, within = _parted(denoise)
        moved = self.sampler.step(within, state, t, s)
        noise = draw(state.keys, state.index + _KNOWN_NOISE, state.x.shape[1:])
        return moved.moved_to(jnp.where(mask, moved.x, s.noised(known, noise)))

    def advance(self, denoise: Bound, walk: Walk, state: State) -> State:
        """A step from wherever each example stands; at the end of a jump, all its repetitions."""

        def step_at(x: Batch, index: Int[Array, "..."], keys: BatchKeys) -> State:
            t, s = walk[index].over(x), walk[index + 1].over(x)
            return self.step(denoise, State(x, keys, index, state.steps, state.memory), t, s)

        moved = step_at(state.x, state.index, state.keys)
        if self.resample == 1:
            return moved
        # Where no jump has ended yet, nothing is repeated, and the index is of no account.
        begin = jnp.maximum(state.index + 1 - self.jump, 0)
        due = (state.index + 1) % self.jump == 0
        own = _folded(_folded(state.keys, _AGAIN), state.index)

        def again(number: Int[Array, ""], x: Batch) -> Batch:
            offset, keys = number % self.jump, _folded(own, number)
            # Role 0 is that of the noise to begin with, which a repetition does not draw.
            back = walk[begin].raised(x, walk[state.index + 1], draw(keys, 0, x.shape[1:]))
            return step_at(jnp.where(offset == 0, back, x), begin + offset, keys).x

        times = jnp.where(jnp.any(due), (self.resample - 1) * self.jump, 0)
        x = jax.lax.fori_loop(0, times, again, moved.x)
        return moved.moved_to(jnp.where(over(due, x), x, moved.x))


def takes_single_steps(sampler: AbstractSampler) -> bool:
    """Whether each step of a sampler depends on nothing but where it begins and ends."""
    own_way = type(sampler).advance is not AbstractSampler.advance
    return not (sampler.remembers or sampler.chooses_levels or own_way)


def _parted(denoise: Bound) -> tuple[Batch, Array, Bound]:
    """What is known, where it is to be filled in, and what the sampler within sees."""
    given = denoise.cond if isinstance(denoise.cond, dict) else {}
    missing = [name for name in (KNOWN, KNOWN_MASK) if name not in given]
    if missing:
        raise ValueError(
            f"inpainting needs cond[{missing[0]!r}]; give a dict with {KNOWN!r} and {KNOWN_MASK!r}, and "
            'with labels under "label"'
        )
    own, rest = take(denoise.cond, (KNOWN, KNOWN_MASK))
    mask = own[KNOWN_MASK]
    within = dataclasses.replace(denoise, cond=rest)
    return own[KNOWN], mask if mask.dtype == bool else mask > 0.5, within


def _check_fit(known: Array, mask: Array, x: Batch) -> None:
    if known.shape != x.shape:
        raise ValueError(
            f"cond[{KNOWN!r}] must have the shape of what is drawn, {x.shape}; got {known.shape}"
        )
    fits = mask.ndim == x.ndim and all(
        m in (1, n) for m, n in zip(mask.shape, x.shape, strict=True)
    )
    if not fits:
        raise ValueError(
            f"cond[{KNOWN_MASK!r}] must have the shape {x.shape}, or 1 in place of an axis; got "
            f"{mask.shape}"
        )


def _folded(keys: BatchKeys, number: Int[Array, "..."] | int) -> BatchKeys:
    numbers = jnp.broadcast_to(jnp.asarray(number, jnp.int32), keys.shape)
    return jax.vmap(jax.random.fold_in)(keys, numbers)
