"""The laws of guidance."""

import dataclasses
import functools
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from diffusion_eqx._typing import Batch, Cond
from diffusion_eqx._values import as_arrays
from diffusion_eqx.denoiser import AbstractDenoiser, Level, Prediction
from diffusion_eqx.exact import GaussianMixtureDenoiser
from diffusion_eqx.guidance import (
    AbstractGuidance,
    AbstractPosteriorGuidance,
    Guided,
    numbers,
    take,
    with_numbers,
)
from diffusion_eqx.samplers import DDIMSampler, sample
from diffusion_eqx.schedules import (
    AbstractSchedule,
    FlowSchedule,
    NoiseLevel,
    VESchedule,
    VPSchedule,
)
from diffusion_eqx.testing.compiles import count_compiles, demand_inputs
from diffusion_eqx.testing.law import broken_by, demand, demand_instance
from diffusion_eqx.testing.sampler import custom_calls

_SHAPE = (2, 2, 2)
_INTERVAL = (0.3, 0.7)
_OWN_NUMBERS = "each example is guided by its own number, if there is one for each"
_OVER = "Use schedules.over(number, x) for numbers of shape (batch,)"


def check_guidance(
    guidance: AbstractGuidance,
    *,
    denoiser: AbstractDenoiser | None = None,
    cond: Cond = None,
    shape: tuple[int, ...] = _SHAPE,
) -> None:
    """Check the laws that a guidance must keep.

    - `denoiser`: what is guided, of examples of `shape`; by default an exact denoiser of three
      classes on each of three schedules.
    - `cond`: the condition of two examples. By default a dict of labels, with what the guidance
      takes beside them: a class label, or a measurement of the shape that its operator gives.
      Whatever else it takes must be given.

    The laws:

    - With its numbers neutral it changes nothing; as it is, it changes something, and so does every number.
    - Outside its interval it changes nothing and costs one branch; inside it is that of the whole interval.
    - Each example is guided by its own level, condition and numbers, with as many examples as channels.
    - Predictions are finite at both ends, also where no signal is left.
    - x = alpha·x0 + sigma·eps still holds, unless it says that it does not (`keeps_pair`).
    - The network does not see what the guidance takes, and a missing part of `cond` is refused.
    - No number costs a new compile, and derivatives by numbers equal differences.
    - It can be exported: it has no custom call.

    One CPU device cannot show what guidance is worth on images, nor what it costs in memory.

    **Raises:** `LawBroken`, which names the law, what was found and what is owed.
    """
    demand_instance(guidance, AbstractGuidance)
    demand_inputs(guidance)
    given = _cond(guidance, shape) if cond is None else cond
    rng = np.random.default_rng(1)
    x = jnp.asarray(rng.standard_normal((2, *shape)), float)
    if denoiser is None:
        made: list[AbstractSchedule] = [VPSchedule(), VESchedule(), FlowSchedule()]
        denoisers = [_classes(schedule, shape) for schedule in made]
    else:
        denoisers = [denoiser]
    main = denoisers[0]
    levels = main.schedule.at(jnp.asarray([0.15, 0.5], float))
    _changes(guidance, main, x, levels, given)
    _inside(guidance, main, x, given)
    _apart(guidance, main, x, levels, given)
    _own_numbers(guidance, main, x, levels, given)
    _pair(guidance, main, x, levels, given)
    for each in denoisers:
        _finite(guidance, each, x, given)
    _takes(guidance, main, x, levels, given)
    _compiles(guidance, main, shape, given)
    _derivatives(guidance, main, x, levels, given)
    _exports(guidance, main, x, levels, given)


def _classes(schedule: AbstractSchedule, shape: tuple[int, ...]) -> GaussianMixtureDenoiser:
    """Three classes, wide enough to leave [−1, 1]."""
    means = np.random.default_rng(0).uniform(-1.5, 1.5, (3, *shape))
    weights, stds = jnp.asarray([0.5, 0.3, 0.2], float), jnp.asarray([0.5, 0.6, 0.4], float)
    return GaussianMixtureDenoiser(weights, jnp.asarray(means, float), stds, schedule)


def _cond(guidance: AbstractGuidance, shape: tuple[int, ...]) -> dict[str, Array]:
    cond: dict[str, Array] = {"label": jnp.asarray([0, 1], jnp.int32)}
    for name in guidance.takes:
        if name == "class_label":
            cond[name] = jnp.asarray([1, 2], jnp.int32)
        elif name == "measurement" and isinstance(guidance, AbstractPosteriorGuidance):
            batch = jax.ShapeDtypeStruct((2, *shape), jnp.zeros(()).dtype)
            measured = jax.eval_shape(guidance.operator, batch)
            values = np.random.default_rng(2).uniform(-0.5, 0.5, measured.shape)
            cond[name] = jnp.asarray(values, measured.dtype)
        else:
            raise ValueError(
                f"check_guidance does not know what cond[{name!r}] should be; give it as "
                f"check_guidance(..., cond={{'label': ..., {name!r}: ...}}) for two examples"
            )
    return cond


@eqx.filter_jit
def _predict(
    guidance: AbstractGuidance, denoiser: AbstractDenoiser, x: Batch, level: NoiseLevel, cond: Cond
) -> Prediction:
    return Guided(denoiser, guidance)(x, level, cond)


@eqx.filter_jit
def _plain(
    guidance: AbstractGuidance, denoiser: AbstractDenoiser, x: Batch, level: NoiseLevel, cond: Cond
) -> Prediction:
    return denoiser(x, level, take(cond, guidance.takes)[1])


def _distance(a: Prediction, b: Prediction) -> float:
    return max(
        float(jnp.max(jnp.abs(one - other)) / (1.0 + jnp.max(jnp.abs(other))))
        for one, other in ((a.x0, b.x0), (a.eps, b.eps))
    )


def _changes(
    guidance: AbstractGuidance,
    denoiser: AbstractDenoiser,
    x: Batch,
    level: NoiseLevel,
    cond: Cond,
) -> None:
    plain = _plain(guidance, denoiser, x, level, cond)
    found = numbers(guidance)
    neutral = {name: n.neutral for name, n in found.items() if n.neutral is not None}
    if neutral:
        off = _distance(
            _predict(as_arrays(with_numbers(guidance, neutral)), denoiser, x, level, cond), plain
        )
        shown = ", ".join(f"{name} = {value:g}" for name, value in neutral.items())
        demand(
            "its neutral value changes nothing",
            off <= 1e-5,
            f"a difference of {off:.3g} at {shown}",
            "at most 1e-5",
        )
    made = as_arrays(guidance)
    guided = _predict(made, denoiser, x, level, cond)
    off = _distance(guided, plain)
    demand("guidance changes the prediction", off > 1e-4, off, "more than 1e-4")
    for name, number in found.items():
        places = {number.minimum, number.default, number.maximum}
        places |= {min(number.maximum, 2.0 * number.default + 1.0)}
        moved = [
            _distance(
                _predict(
                    as_arrays(with_numbers(guidance, {name: value})), denoiser, x, level, cond
                ),
                guided,
            )
            for value in places
        ]
        demand(
            "every number acts",
            np.nanmax(moved) > 1e-6,
            f"no change by {name} in {sorted(places)}",
            "another prediction",
            "Remove the number, or use it",
        )


_ROWS = {"count": 0}


def _saw(rows: int) -> None:
    _ROWS["count"] += rows


class _Seen(AbstractDenoiser):
    """A denoiser that counts the examples it is shown, and remembers the conditions."""

    denoiser: AbstractDenoiser
    seen: Any = eqx.field(static=True)

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
        self.seen.add(tuple(sorted(cond)) if isinstance(cond, dict) else ())
        jax.debug.callback(functools.partial(_saw, len(x)))
        return self.denoiser(x, level, cond)


class _Memory:
    """A set of what was seen; the same for every comparison, so that a program is not compiled anew."""

    def __init__(self) -> None:
        self.names: set[tuple[str, ...]] = set()

    def add(self, names: tuple[str, ...]) -> None:
        self.names.add(names)


def _rows(
    guidance: AbstractGuidance, denoiser: AbstractDenoiser, x: Batch, level: NoiseLevel, cond: Cond
) -> int:
    jax.effects_barrier()
    _ROWS["count"] = 0
    jax.block_until_ready(_predict(guidance, _Seen(denoiser, _Memory()), x, level, cond))
    jax.effects_barrier()
    return _ROWS["count"]


def _inside(guidance: AbstractGuidance, denoiser: AbstractDenoiser, x: Batch, cond: Cond) -> None:
    if not any(field.name == "interval" for field in dataclasses.fields(guidance)):
        return
    narrow = as_arrays(dataclasses.replace(guidance, interval=_INTERVAL))
    whole = as_arrays(dataclasses.replace(guidance, interval=None))
    at = denoiser.schedule.at
    for time in (0.1, 0.9):
        level = at(jnp.asarray(time, float))
        plain = _plain(narrow, denoiser, x, level, cond)
        off = _distance(_predict(narrow, denoiser, x, level, cond), plain)
        demand("outside its interval guidance changes nothing", off <= 1e-6, off, "at most 1e-6")
    level = at(jnp.asarray(0.5, float))
    off = _distance(
        _predict(narrow, denoiser, x, level, cond), _predict(whole, denoiser, x, level, cond)
    )
    demand("inside its interval guidance is that of the whole", off <= 1e-6, off, "at most 1e-6")
    level = at(jnp.asarray([0.1, 0.5], float))
    mixed = _predict(narrow, denoiser, x, level, cond)
    plain = _plain(narrow, denoiser, x, level, cond)
    guided = _predict(whole, denoiser, x, level, cond)
    for index, wanted in ((0, plain), (1, guided)):
        off = float(jnp.abs(mixed.x0[index] - wanted.x0[index]).max())
        demand("each example has its own interval", off <= 1e-5, off, "at most 1e-5")
    rows = _rows(narrow, denoiser, x, at(jnp.asarray(0.9, float)), cond)
    demand(
        "outside its interval guidance costs one branch",
        rows == len(x),
        f"{rows} examples shown",
        f"{len(x)}",
    )


def _apart(
    guidance: AbstractGuidance, denoiser: AbstractDenoiser, x: Batch, level: NoiseLevel, cond: Cond
) -> None:
    made = as_arrays(guidance)
    both = _predict(made, denoiser, x, level, cond)
    for index in range(2):
        part = jax.tree.map(lambda a, i=index: a[i : i + 1], (x, cond))
        alone = _predict(made, denoiser, part[0], level[index], part[1])
        size = 1.0 + float(jnp.abs(alone.x0).max())
        off = float(jnp.abs(both.x0[index] - alone.x0[0]).max()) / size
        demand(
            "each example is guided by its own level and condition",
            off <= 1e-4,
            off,
            "equal within 1e-4",
            _OVER,
        )


def _own_numbers(
    guidance: AbstractGuidance, denoiser: AbstractDenoiser, x: Batch, level: NoiseLevel, cond: Cond
) -> None:
    for name, number in numbers(guidance).items():
        pair = (number.default, min(number.maximum, 2.0 * number.default + 0.5))
        pair = pair if pair[1] > pair[0] else (0.5 * sum((number.minimum, pair[0])), pair[0])
        many = as_arrays(with_numbers(guidance, {name: jnp.asarray(pair, float)}))
        try:
            both = _predict(many, denoiser, x, level, cond).x0
        except Exception as error:
            broken_by(_OWN_NUMBERS, error, f"no error where {name} is an array of two", _OVER)
        for index, value in enumerate(pair):
            one = as_arrays(with_numbers(guidance, {name: value}))
            alone = _predict(one, denoiser, x, level, cond).x0[index]
            off = float(jnp.abs(both[index] - alone).max() / (1.0 + jnp.abs(alone).max()))
            demand(
                _OWN_NUMBERS, off <= 1e-4, off, f"equal within 1e-4 where {name} is an array", _OVER
            )


def _pair(
    guidance: AbstractGuidance, denoiser: AbstractDenoiser, x: Batch, level: NoiseLevel, cond: Cond
) -> None:
    both = _predict(as_arrays(guidance), denoiser, x, level, cond)
    again = level.noised(both.x0, both.eps)
    off = float(jnp.abs(again - x).max())
    if guidance.keeps_pair:
        demand(
            "x = alpha·x0 + sigma·eps holds",
            off <= 1e-3,
            off,
            "at most 1e-3",
            "Use predicted.with_x0(x, level, x0), or say keeps_pair = False",
        )


def _finite(guidance: AbstractGuidance, denoiser: AbstractDenoiser, x: Batch, cond: Cond) -> None:
    schedule, made = denoiser.schedule, as_arrays(guidance)
    for time in (1.0, 1.0 / schedule.num_timesteps):
        level = schedule.at(jnp.asarray([time, 0.5], float))
        noisy = level.noised(jnp.clip(x, -1.0, 1.0), x[::-1])
        found = _predict(made, denoiser, noisy, level, cond)
        finite = bool(jnp.isfinite(found.x0).all() and jnp.isfinite(found.eps).all())
        demand(
            "predictions are finite at both ends",
            finite,
            f"NaN or infinity at t = {time:g} of {type(schedule).__name__}",
            "finite numbers",
            "Where alpha is 0, nothing is known of x0: leave the prediction as it is",
        )


def _takes(
    guidance: AbstractGuidance, denoiser: AbstractDenoiser, x: Batch, level: NoiseLevel, cond: Cond
) -> None:
    memory = _Memory()
    Guided(_Seen(denoiser, memory), guidance)(x, level, cond)
    seen = {name for names in memory.names for name in names}
    stray = sorted(seen & set(guidance.takes))
    demand(
        "the network does not see what the guidance takes",
        not stray,
        f"cond of {stray}",
        "none of it",
    )
    for name in guidance.takes:
        assert isinstance(cond, dict)
        rest = {key: value for key, value in cond.items() if key != name}
        try:
            Guided(denoiser, guidance)(x, level, rest)
        except ValueError:
            continue
        except Exception as error:
            broken_by(
                "a missing part of cond is refused", error, f"a ValueError that names {name!r}"
            )
        demand(
            "a missing part of cond is refused",
            False,
            "a prediction",
            f"a ValueError that names {name!r}",
        )


def _compiles(
    guidance: AbstractGuidance, denoiser: AbstractDenoiser, shape: tuple[int, ...], cond: Cond
) -> None:
    def drawn(made: AbstractGuidance) -> None:
        key = jax.random.key(0)
        sample(denoiser, DDIMSampler(), shape, count=2, steps=3, key=key, cond=cond, guidance=made)

    drawn(guidance)
    with count_compiles() as compiles:
        for name, number in numbers(guidance).items():
            for value in {number.minimum, number.default, number.maximum, number.neutral} - {None}:
                drawn(with_numbers(guidance, {name: value}))
    demand(
        "no number costs a new compile",
        compiles.count == 0,
        f"{compiles.count} compiles in a sweep of {', '.join(numbers(guidance))}",
        "0",
        "Declare it by number(...), and use jnp.where in place of `if`",
    )


def _derivatives(
    guidance: AbstractGuidance, denoiser: AbstractDenoiser, x: Batch, level: NoiseLevel, cond: Cond
) -> None:
    made = as_arrays(guidance)

    @eqx.filter_jit
    def slopes(
        made: AbstractGuidance, name: str, place: Array, stride: Array
    ) -> tuple[Array, Array]:
        def x0(value: Array) -> Array:
            return Guided(denoiser, with_numbers(made, {name: value}))(x, level, cond).x0

        near = jax.lax.map(lambda i: x0(place + i * stride), jnp.asarray([0.0, 1.0, 2.0]))
        slope = jax.jvp(x0, (place,), (jnp.ones_like(place),))[1]
        return slope, (-3.0 * near[0] + 4.0 * near[1] - near[2]) / (2.0 * stride)

    for name, number in numbers(guidance).items():
        value = number.value if isinstance(number.value, float) else number.default
        stride = 1e-2 * abs(value) or 1e-2
        stride = stride if value + 2.0 * stride <= number.maximum else -stride
        places = (jnp.asarray(value, float), jnp.asarray(stride, float))
        found, quotient = (np.asarray(a) for a in slopes(made, name, *places))
        demand(
            "derivatives are finite",
            np.isfinite(found).all(),
            f"NaN or infinity by {name}",
            "finite",
        )
        off = float(np.abs(found - quotient).max() / (1.0 + np.abs(quotient).max()))
        demand(
            f"the derivative by {name} is that of differences",
            off <= 3e-2,
            off,
            "equal within 3e-2",
        )


def _exports(
    guidance: AbstractGuidance, denoiser: AbstractDenoiser, x: Batch, level: NoiseLevel, cond: Cond
) -> None:
    law = "guidance can be exported"
    made = as_arrays(guidance)

    def predict(x: Array) -> tuple[Array, Array]:
        found = Guided(denoiser, made)(x, level, cond)
        return found.x0, found.eps

    try:
        calls = custom_calls(predict, jax.ShapeDtypeStruct(x.shape, x.dtype))
    except Exception as error:
        broken_by(law, error, "no error")
    demand(
        law, not calls, f"custom calls of {', '.join(calls)}", "none", "Write it without jnp.linalg"
    )
