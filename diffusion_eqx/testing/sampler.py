"""The laws of a sampler."""

import dataclasses
import re
from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from diffusion_eqx._typing import Batch, BatchKeys, Cond
from diffusion_eqx._values import as_arrays
from diffusion_eqx.denoiser import AbstractDenoiser, Level, Prediction
from diffusion_eqx.exact import GaussianDenoiser
from diffusion_eqx.samplers import (
    AbstractNoise,
    AbstractSampler,
    Bound,
    State,
    Walk,
    begin_from_noise,
    draw,
    image_keys,
    numbers,
    sample,
    with_numbers,
)
from diffusion_eqx.schedules import (
    AbstractSchedule,
    FlowSchedule,
    NoiseLevel,
    VESchedule,
    VPSchedule,
    over,
)
from diffusion_eqx.testing.any_schedule import AnySchedule
from diffusion_eqx.testing.compiles import count_compiles, demand_inputs
from diffusion_eqx.testing.law import broken_by, demand, demand_instance
from diffusion_eqx.testing.problems import exact_flow, three_gaussians

Oracle = Callable[[Array, Array, AbstractSchedule], AbstractDenoiser]

# The Gaussian whose samples are asked for, and the schedules: with some signal at t = 1, with large
# numbers, and without any signal.
MEAN, STD = 0.3, 0.5
ENDS = {"VPSchedule": VPSchedule(), "VESchedule": VESchedule(), "FlowSchedule": FlowSchedule()}
# An example with as many channels as the batch has examples.
_SHAPE = (2, 2, 2)
# Steps that an adaptive sampler may take.
_MOST = 400


def check_sampler(
    sampler: AbstractSampler,
    order: float | None = None,
    *,
    steps: Sequence[int] = (20, 40, 80),
    oracle: Oracle = GaussianDenoiser,
    spread: float = 0.03,
) -> None:
    """Check the laws that a sampler must keep, on problems whose answer is known.

    - `order`: the order at which it converges, if that is to be checked: of a deterministic sampler
      to the exact flow of a mixture, of a stochastic one in the standard deviation of its samples.
    - `steps`: the numbers of steps between which the order is measured.
    - `oracle`: `(mean, std, schedule) -> denoiser`, exact for N(mean, std²), where the sampler
      needs another kind of network than the usual.
    - `spread`: how far the standard deviation may be off at four times as many steps, as a part of it.

    The laws:

    - Samples are finite at both ends: from 1 step on, from a start without signal (FlowSchedule)
      and one of large numbers (VESchedule).
    - Samples of a Gaussian have its mean and standard deviation, on each of these schedules, from
      whatever level the grid begins at.
    - It converges at its order.
    - A single step returns x0.
    - What it remembers has the batch as its first axis, and `remembers` says that there is something.
    - An image does not depend on its batch. Images of one batch at different steps, of different
      numbers of steps, equal each alone. Both with as many examples as channels.
    - A deterministic sampler does not look at the keys; a stochastic one does.
    - It calls the denoiser as often as `evaluations` says.
    - Every number of steps, each declared number and `first` cost no new compile.
    - Its derivatives by noise and numbers are finite, and equal differences. This is not asked of samplers
      that choose their levels, through which no gradient flows.
    - A step can be exported: it has no custom call, which no native program could run.

    A stochastic sampler is to draw through `self.noise`; what it draws beyond that is judged by
    counting, which sees errors from about 2 % on. One CPU device cannot show what several devices
    round differently, nor speed and memory.

    **Raises:** `LawBroken`, which names the law, what was found and what is owed.
    """
    demand_instance(sampler, AbstractSampler)
    usable = _usable(sampler, steps)
    demand_inputs(sampler)
    _memory(sampler, oracle)
    _each_image(sampler, oracle)
    if sampler.chooses_levels:
        _counted_moments(sampler, oracle, _MOST, 1000, spread)
    else:
        _moments(sampler, order, usable, oracle, spread)
    if order is not None and sampler.deterministic and not sampler.chooses_levels:
        _order(sampler, order, usable)
    _derivatives(sampler, oracle)
    _lowers(sampler, oracle)


def _memory(sampler: AbstractSampler, oracle: Oracle) -> None:
    schedule, batch = ENDS["VPSchedule"], 3
    denoiser = oracle(jnp.asarray(MEAN), jnp.asarray(STD), schedule)

    def begun(x: Batch) -> Any:
        walk = Walk.of(as_arrays(sampler).grid, schedule, _usable(sampler, (20,))[0])
        keys = image_keys(jax.random.key(0), batch)
        return begin_from_noise(sampler, Bound(denoiser), walk, x, keys=keys).memory

    memory = jax.eval_shape(begun, jnp.zeros((batch, *_SHAPE)))
    shapes = [leaf.shape for leaf in jax.tree.leaves(memory)]
    demand(
        "what it remembers has the batch as its first axis",
        all(shape[:1] == (batch,) for shape in shapes),
        f"arrays of shapes {shapes} for a batch of {batch}",
        "one entry for each example",
        "An artifact carries each example by itself",
    )
    demand(
        "it says that it remembers",
        sampler.remembers or not shapes,
        f"remembers = False, and init gives {len(shapes)} arrays",
        "remembers = True",
    )


def _usable(sampler: AbstractSampler, steps: Sequence[int]) -> list[int]:
    """The numbers of steps that the grid has; that of a grid of given times."""
    found = [n for n in steps if _has(sampler, n)]
    return found or [n for n in range(1, 1001) if _has(sampler, n)][:1]


def _has(sampler: AbstractSampler, steps: int) -> bool:
    try:
        sampler.grid.check(ENDS["VPSchedule"], steps)
    except ValueError:
        return False
    return True


def solve(
    sampler: AbstractSampler,
    denoiser: AbstractDenoiser,
    noise: Batch,
    keys: BatchKeys,
    steps: int | Int[Array, ""] | Int[Array, " batch"],
    cond: Cond = None,
) -> Batch:
    """Sample from noise with numbers of steps that may be known at run time only, perhaps one for each
    example.

    Examples that have taken their steps wait for the others.
    """
    denoise = Bound(denoiser, cond)
    walk = Walk.of(sampler.grid, denoiser.schedule, steps)
    state = begin_from_noise(sampler, denoise, walk, noise, keys=keys)
    if isinstance(steps, int) or steps.ndim == 0:

        def body(_: Any, state: State) -> State:
            return sampler.advance(denoise, walk, state)

        return jax.lax.fori_loop(0, steps, body, state).x

    def body_of_each(_: Any, state: State) -> State:
        running = state.index < walk.steps
        moved = sampler.advance(denoise, walk, state)

        def kept(new: Array, old: Array) -> Array:
            return jnp.where(over(running, new), new, old) if new.ndim else new

        arrays = jax.tree.map(
            kept, (moved.x, moved.index, moved.memory), (state.x, state.index, state.memory)
        )
        return State(arrays[0], state.keys, arrays[1], walk.steps, arrays[2])

    return jax.lax.fori_loop(0, jnp.max(steps), body_of_each, state).x


# The laws of moments.


class _UnitNoise(AbstractNoise):
    """Noise by which the response to each step's noise is read off.

    Coordinate k + 1 sees that of step k alone.
    """

    def __call__(self, state: State, t: NoiseLevel, s: NoiseLevel) -> Batch:
        """1 in the coordinate of the step, 0 elsewhere."""
        return _unit(state.column(state.index + 1), state.x)


def _unit(place: Array, x: Batch) -> Batch:
    coordinate = jnp.arange(x.shape[-1], dtype=jnp.int32).reshape((1,) * (x.ndim - 1) + (-1,))
    return jnp.broadcast_to((coordinate == place).astype(x.dtype), x.shape)


@eqx.filter_jit
def _responses(
    sampler: AbstractSampler,
    oracle: Oracle,
    schedules: tuple[AbstractSchedule, ...],
    size: int,
    steps: Int[Array, ""],
    key: Array,
) -> tuple[Float[Array, "schedules size"], Float[Array, "schedules 2"]]:
    """One example on each schedule, coordinate 0 of which begins at 1 and the others at 0; and the
    first level.

    Coordinates do not mix, and a sampler of a Gaussian is an affine map of all the noise that it
    sees. So the last coordinate, which sees none, is the mean of its samples, and the differences
    of the others to it are the factors of their noise.
    """

    def one(which: Array) -> tuple[Array, Array]:
        schedule = AnySchedule(schedules, which, num_timesteps=schedules[0].num_timesteps)
        mean, std = jnp.full(size, MEAN), jnp.full(size, STD)
        start = Walk.of(sampler.grid, schedule, steps)[jnp.asarray(0, jnp.int32)]
        noise = _unit(jnp.asarray(0), jnp.zeros((1, size)))
        x = solve(sampler, oracle(mean, std, schedule), noise, key[None], steps)
        return x[0], jnp.stack([start.alpha, start.sigma])

    return jax.vmap(one)(jnp.arange(len(schedules)))


def _moments(
    sampler: AbstractSampler, order: float | None, steps: list[int], oracle: Oracle, spread: float
) -> None:
    unit = dataclasses.replace(sampler, noise=_UnitNoise()) if sampler.stochastic else sampler
    unit = as_arrays(unit)
    schedules = tuple(ENDS.values())
    most = 4 * max(steps)
    finest = most if _has(sampler, most) else max(steps)
    size = finest + 2

    def run(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
        key = jax.random.key(seed)
        x, starts = _responses(unit, oracle, schedules, size, jnp.asarray(n, jnp.int32), key)
        return np.asarray(x, np.float64), np.asarray(starts, np.float64)

    few = [n for n in (1, 2, 3) if _has(sampler, n)]
    for n in [*few, *steps, finest]:
        x, _ = run(n)
        for name, row in zip(ENDS, x, strict=True):
            finite = bool(np.isfinite(row).all())
            demand(
                "samples are finite at both ends",
                finite,
                f"NaN or infinity on {name} in {n} steps",
                "finite",
            )
    found, starts = run(finest)
    if not np.allclose(found, run(finest, seed=1)[0], atol=1e-6):
        _counted_moments(sampler, oracle, finest, 40_000, spread)
        return
    for name, x, start in zip(ENDS, found, starts, strict=True):
        judge_moments(x, start, f"{name}, {finest} steps", spread)
    if order is not None and not sampler.deterministic:
        errors = []
        for n in steps:
            x, starts = run(n)
            wanted = expected_moments(float(starts[0][0]), float(starts[0][1]))[1]
            errors.append(abs(moments_of(x[0])[1] - wanted[1]) / STD)
        demand_order(order, steps, np.array(errors), "in the standard deviation of samples")


def moments_of(response: np.ndarray) -> tuple[float, float]:
    """Mean and standard deviation of samples, from the answers to single noises."""
    mean = response[-1]
    return float(mean), float(np.sqrt(np.sum((response[:-1] - mean) ** 2)))


def expected_moments(alpha: float, sigma: float) -> tuple[tuple[float, float], tuple[float, float]]:
    """(mean, std) of exact samples that begin as sigma·noise at a level: by the flow, and by the
    reverse SDE.

    At t = 1 both are those of the data, but for what is left of the signal.
    """
    total = alpha**2 * STD**2 + sigma**2
    flow = MEAN - STD * alpha * MEAN / total**0.5, STD * sigma / total**0.5
    gain = alpha * STD**2 / total
    noise = STD**2 * sigma**2 / total + gain**2 * sigma**2
    return flow, (MEAN - gain * alpha * MEAN, noise**0.5)


def judge_moments(
    response: np.ndarray, start: np.ndarray, where: str, spread: float, uncertainty: float = 0.0
) -> None:
    """**Raises:** `LawBroken` unless mean and deviation are those of the Gaussian, within `spread`
    of its own.

    `response`: as of `moments_of`, or (mean, std) found by counting, with its `uncertainty`.
    """
    mean, std = moments_of(response) if uncertainty == 0.0 else (float(m) for m in response)
    (flow_mean, flow_std), (sde_mean, sde_std) = expected_moments(float(start[0]), float(start[1]))
    allowed = spread * STD + uncertainty
    low, high = min(flow_std, sde_std) - allowed, max(flow_std, sde_std) + allowed
    demand(
        "samples of a Gaussian have its standard deviation",
        low <= std <= high,
        f"{std:.4g} for {flow_std:.4g} ({where})",
        f"between {low:.4g} and {high:.4g}",
        "Look at the size of the start, and at the noise that each step adds",
    )
    low, high = min(flow_mean, sde_mean) - allowed, max(flow_mean, sde_mean) + allowed
    demand(
        "samples of a Gaussian have its mean",
        low <= mean <= high,
        f"{mean:.4g} for {flow_mean:.4g} ({where})",
        f"between {low:.4g} and {high:.4g}",
    )


@eqx.filter_jit
def _drawn(
    sampler: AbstractSampler,
    oracle: Oracle,
    schedules: tuple[AbstractSchedule, ...],
    keys: BatchKeys,
    steps: Int[Array, ""],
) -> tuple[Float[Array, "schedules count 1"], Float[Array, "schedules 2"]]:
    noise = draw(keys, 0, (1,))

    def one(which: Array) -> tuple[Array, Array]:
        schedule = AnySchedule(schedules, which, num_timesteps=schedules[0].num_timesteps)
        start = Walk.of(sampler.grid, schedule, steps)[jnp.asarray(0, jnp.int32)]
        denoiser = oracle(jnp.full(1, MEAN), jnp.full(1, STD), schedule)
        x = solve(sampler, denoiser, noise, keys, steps)
        return x, jnp.stack([start.alpha, start.sigma])

    return jax.lax.map(one, jnp.arange(len(schedules)))


def _counted_moments(
    sampler: AbstractSampler, oracle: Oracle, steps: int, count: int, spread: float
) -> None:
    keys = image_keys(jax.random.key(2), count)
    number = jnp.asarray(steps, jnp.int32)
    found, starts = _drawn(as_arrays(sampler), oracle, tuple(ENDS.values()), keys, number)
    for name, x, start in zip(ENDS, np.asarray(found), np.asarray(starts), strict=True):
        lost = int((~np.isfinite(x)).sum())
        demand(
            "samples are finite at both ends",
            lost == 0,
            f"{lost} of {count} are not ({name}, {steps} steps)",
            "finite",
        )
        moments = np.array([x.mean(dtype=np.float64), x.std(dtype=np.float64)])
        judge_moments(moments, start, f"{name}, {steps} steps", spread, 4.0 * STD / count**0.5)


# The law of order.


@eqx.filter_jit
def _end(
    sampler: AbstractSampler, denoiser: AbstractDenoiser, noise: Batch, steps: Int[Array, ""]
) -> tuple[Batch, Array]:
    keys = image_keys(jax.random.key(1), len(noise))
    start = Walk.of(sampler.grid, denoiser.schedule, steps)[jnp.asarray(0, jnp.int32)]
    return solve(sampler, denoiser, noise, keys, steps), jnp.exp(-start.lam)


def _order(sampler: AbstractSampler, order: float, steps: list[int]) -> None:
    denoiser = three_gaussians(VESchedule(0.002, 8.0))
    noise = np.random.default_rng(0).standard_normal((64, 2))
    known: dict[float, np.ndarray] = {}
    errors = []
    for n in steps:
        x, ratio = _end(
            as_arrays(sampler), denoiser, jnp.asarray(noise, float), jnp.asarray(n, jnp.int32)
        )
        s = float(ratio)
        if s not in known:
            known[s] = exact_flow(noise * s, s)
        errors.append(float(np.sqrt(np.mean((np.asarray(x, np.float64) - known[s]) ** 2))))
    demand_order(order, steps, np.array(errors), "to the exact flow")


def demand_order(order: float, steps: Sequence[int], errors: np.ndarray, what: str) -> None:
    """**Raises:** `LawBroken` unless errors fall with the steps as the order says, down to rounding."""
    rounding = 1e-5 if jnp.zeros(()).dtype == jnp.float32 else 1e-12
    above = errors > rounding
    if above.sum() < 2:
        return
    n = np.asarray(steps, np.float64)[above]
    found = -np.polyfit(np.log(n), np.log(errors[above]), 1)[0]
    shown = ", ".join(f"{e:.2g}" for e in errors)
    demand(
        "it converges at its order",
        found > order - 0.3,
        f"order {found:.2f} {what} (errors {shown} in {', '.join(map(str, steps))} steps)",
        f"more than {order - 0.3:.1f}",
        "A coefficient is wrong, or the level of another time is used",
    )


# The laws of images in a batch.

_CALLS = {"count": 0}


class _Counted(AbstractDenoiser):
    """A denoiser that counts its calls while a program runs."""

    denoiser: AbstractDenoiser

    @property
    def schedule(self) -> AbstractSchedule:
        """That of the denoiser within."""
        return self.denoiser.schedule

    @property
    def null(self) -> Cond:
        """That of the denoiser within."""
        return self.denoiser.null

    def __call__(self, x: Batch, level: Level, cond: Cond = None) -> Prediction:
        """Its prediction."""
        jax.debug.callback(_called)
        return self.denoiser(x, level, cond)


def _called() -> None:
    _CALLS["count"] += 1


@eqx.filter_jit
def _mixed(
    sampler: AbstractSampler,
    denoiser: AbstractDenoiser,
    noise_keys: BatchKeys,
    keys: BatchKeys,
    steps: Int[Array, " batch"],
) -> Batch:
    return solve(sampler, denoiser, draw(noise_keys, 0, _SHAPE), keys, steps)


def _image_problem(oracle: Oracle) -> AbstractDenoiser:
    rng = np.random.default_rng(0)
    mean = jnp.asarray(rng.uniform(-0.5, 0.5, _SHAPE), float)
    std = jnp.asarray(rng.uniform(0.1, 0.6, _SHAPE), float)
    return oracle(mean, std, ENDS["VPSchedule"])


def _each_image(sampler: AbstractSampler, oracle: Oracle) -> None:
    denoiser = _image_problem(oracle)
    several = sampler.evaluations is None or sampler.chooses_levels
    seen = denoiser if several else _Counted(denoiser)
    key = jax.random.key(7)
    few = [n for n in (5, 7) if _has(sampler, n)] or _usable(sampler, [5])
    if sampler.chooses_levels:
        few = [_MOST, _MOST - 150]
    one, other = few[0], few[-1]

    def drawn(
        n: int, made: AbstractSampler = sampler, first: int = 0, seed: Array = key
    ) -> np.ndarray:
        steps = jnp.asarray(n, jnp.int32)
        return np.asarray(sample(seen, made, _SHAPE, count=2, steps=steps, key=seed, first=first))

    whole = drawn(one)
    if not several:
        _CALLS["count"] = 0
        jax.effects_barrier()
        _CALLS["count"] = 0
        drawn(one)
        jax.effects_barrier()
        owed = (one - 1) * (sampler.evaluations or 0) + 1
        # With several devices, each computes its own examples.
        calls = _CALLS["count"] / min(len(jax.local_devices()), 2)
        demand(
            "it calls the denoiser as often as `evaluations` says",
            calls == owed,
            f"{calls:g} calls in {one} steps",
            f"{owed}",
        )
    with count_compiles() as compiles:
        later = drawn(other)
        shifted = drawn(one, first=1)
        for name, number in numbers(sampler).items():
            places = {number.minimum, number.default, min(number.maximum, number.minimum + 1.0)}
            for value in places | ({number.neutral} if number.neutral is not None else set()):
                drawn(one, with_numbers(sampler, {name: value}))
    demand(
        "no number costs a new compile",
        compiles.count == 0,
        f"{compiles.count} compiles in a sweep of steps, first, {', '.join(numbers(sampler))}",
        "0",
        "Declare it by number(...), and use jnp.where or denoise.unless_neutral in place of `if`",
    )
    _equal("an image is image k of its key, whatever the batch", shifted[0], whole[1])
    if not sampler.chooses_levels and _has(sampler, 1):
        found = drawn(1)
        walk = Walk.of(sampler.grid, denoiser.schedule, 1)
        level = walk[jnp.asarray(0, jnp.int32)]
        x = level.sigma * draw(image_keys(key, 2), 0, _SHAPE)
        _equal("a single step returns x0", found, np.asarray(denoiser(x, level).x0))

    keys, others = image_keys(key, 2), image_keys(jax.random.key(99), 2)
    beside = jnp.stack([keys[0], others[1]])
    steps = jnp.asarray([one, other], jnp.int32)
    made = as_arrays(sampler)
    mixed = np.asarray(_mixed(made, denoiser, keys, keys, steps))
    for index, alone in ((0, whole), (1, later)):
        _equal(
            "images of one batch at different steps equal each alone", mixed[index], alone[index]
        )
    found = np.asarray(_mixed(made, denoiser, beside, beside, steps))
    _equal("an image does not depend on its batch", found[0], mixed[0])
    same = np.allclose(mixed, np.asarray(_mixed(made, denoiser, keys, others, steps)))
    if sampler.deterministic:
        demand("a deterministic sampler does not look at keys", same, "other samples", "the same")
    else:
        demand("a stochastic sampler draws noise", not same, "the same samples", "others")


def _equal(law: str, found: np.ndarray, wanted: np.ndarray) -> None:
    size = 1.0 + float(np.abs(wanted).max())
    off = float(np.max(np.abs(found - wanted))) / size
    demand(
        law,
        off <= 2e-4,
        off,
        "equal within 2e-4 of its size",
        "Levels have the axes of x inside a step",
    )


# The laws of derivatives and of export.


@eqx.filter_jit
def _slopes(
    sampler: AbstractSampler,
    denoiser: AbstractDenoiser,
    name: str | None,
    place: Array,
    stride: Array,
) -> tuple[Array, Array, Array]:
    """The derivative of a sum over samples by a number and by their noise, and the difference quotient by
    the number. Derivatives are taken backwards, as those of a loss.
    """
    keys = image_keys(jax.random.key(4), 2)
    noise = draw(keys, 0, _SHAPE)
    weights = draw(keys, 1, _SHAPE)

    def summed(value: Array, scale: Array) -> Array:
        made = sampler if name is None else with_numbers(sampler, {name: value})
        return jnp.sum(weights * solve(made, denoiser, scale * noise, keys, 6))

    # One program for all: the place itself, and two beside.
    places = jnp.stack([place, place + stride, place + 2.0 * stride])
    near, (by_number, by_noise) = jax.vmap(
        lambda value: jax.value_and_grad(summed, (0, 1))(value, jnp.ones_like(value))
    )(places)
    quotient = (-3.0 * near[0] + 4.0 * near[1] - near[2]) / (2.0 * stride)
    return by_number[0], by_noise[0], quotient


def _derivatives(sampler: AbstractSampler, oracle: Oracle) -> None:
    # No gradient flows backwards through a loop that chooses how long it runs.
    if sampler.chooses_levels or not _has(sampler, 6):
        return
    denoiser, made = _image_problem(oracle), as_arrays(sampler)
    for name, number in list(numbers(sampler).items()) or [(None, None)]:
        value, stride = 0.0, 1e-2
        if number is not None:
            value = number.value if isinstance(number.value, float) else number.default
            if value == number.neutral:
                # Where an effect begins it may do so like a square root, whose slope is infinite.
                value = 0.5 * (number.minimum + min(number.maximum, number.minimum + 1.0))
            stride = 1e-2 if value + 2e-2 <= number.maximum else -1e-2
        found, by_noise, quotient = (
            np.asarray(a)
            for a in _slopes(
                made, denoiser, name, jnp.asarray(value, float), jnp.asarray(stride, float)
            )
        )
        finite = bool(np.isfinite(found).all() and np.isfinite(by_noise).all())
        demand(
            "derivatives are finite",
            finite,
            f"NaN or infinity by {name or 'the noise'}",
            "finite numbers",
            "Keep square roots away from 0: schedules.safe_sqrt",
        )
        if name is not None:
            off = float(np.abs(found - quotient) / (1.0 + np.abs(quotient)))
            demand(
                f"the derivative by {name} is that of differences",
                off <= 2e-2,
                off,
                "equal within 2e-2",
            )


def custom_calls(function: Callable[..., Any], *shapes: jax.ShapeDtypeStruct) -> list[str]:
    """The custom calls of a function exported for CPUs, which only a program that registers them
    can run.
    """
    exported = jax.export.export(jax.jit(function), platforms=["cpu"])(*shapes)
    return sorted(set(re.findall(r"stablehlo\.custom_call @(\w+)", exported.mlir_module())))


def _lowers(sampler: AbstractSampler, oracle: Oracle) -> None:
    law = "a step can be exported"
    denoiser, made = _image_problem(oracle), as_arrays(sampler)
    count = _usable(sampler, [5])[0]

    def one_step(x: Array, numbers: Array, index: Array) -> list[Array]:
        keys = jax.random.wrap_key_data(numbers)
        denoise = Bound(denoiser)
        walk = Walk.of(made.grid, denoiser.schedule, jnp.full(2, count, jnp.int32))
        state = made.begin(denoise, walk, x, index, keys=keys)
        return jax.tree.leaves(
            eqx.tree_at(lambda s: s.keys, made.advance(denoise, walk, state), None)
        )

    shapes = (
        jax.ShapeDtypeStruct((2, *_SHAPE), jnp.zeros(()).dtype),
        jax.ShapeDtypeStruct((2, 2), jnp.uint32),
        jax.ShapeDtypeStruct((2,), jnp.int32),
    )
    try:
        calls = custom_calls(one_step, *shapes)
    except Exception as error:
        broken_by(law, error, "no error")
    demand(
        law, not calls, f"custom calls of {', '.join(calls)}", "none", "Write it without jnp.linalg"
    )
