"""The laws of a noise schedule."""

import dataclasses
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from diffusion_eqx._values import as_arrays
from diffusion_eqx.schedules import (
    GREATEST_LOG_SNR,
    LEAST_LOG_SNR,
    AbstractSchedule,
    NoiseLevel,
)
from diffusion_eqx.testing.law import broken_by, demand, demand_instance

# What single precision may lose of alpha, sigma and the log-SNR.
_ROUNDING = 1e-5
# Of x at t = 1, in units of its standard deviation, for data of unit deviation.
_MOST_SIGNAL = 0.1
_FIELDS = ("time", "alpha", "sigma", "log_snr")


def check_schedule(schedule: AbstractSchedule) -> None:
    """Check the laws that samplers, losses and networks rely on in a noise schedule.

    - It begins clean: alpha(0) = 1 and sigma(0) = 0.
    - It ends in noise, from which sampling starts: at most a tenth of x is signal at t = 1.
    - alpha and sigma are not negative, and the log-SNR falls strictly.
    - Single precision keeps five digits of alpha, sigma and the log-SNR: no formula cancels.
    - Levels and their slopes are finite at every time, both ends included.
    - `log_snr` is log(alpha²/sigma²).
    - `at_log_snr` inverts it: by time, alpha, sigma and derivative; beyond the ends it gives the ends.
    - Integer timesteps survive the way through time exactly.
    - An array of times gives what each time gives, compiled or not.
    - Its numbers may be inputs of a compiled program.

    One CPU device cannot show how other devices round alpha and sigma.

    **Raises:** `LawBroken`, which names the law, what was found and what is owed.
    """
    demand_instance(schedule, AbstractSchedule)
    total = schedule.num_timesteps
    nodes = np.arange(1, total + 1) / total
    if total > 1000:
        nodes = np.concatenate([nodes[:: total // 500], nodes[:2], nodes[-2:]])
    times = np.unique(np.concatenate([nodes, np.linspace(0.0, 1.0, 499)[1:]]).astype(np.float32))
    # Two times a rounding apart have one log-SNR.
    times = times[np.diff(times, prepend=-1.0) > 1e-5].astype(np.float64)
    found = _measured(schedule, jnp.asarray(times, float))
    alpha, sigma, log_snr = (
        np.asarray(found[n], np.float64) for n in ("alpha", "sigma", "log_snr")
    )
    _begins_clean(*(float(value) for value in found["begin"]))
    least = float(min(alpha.min(), sigma.min()))
    # Half a rounding below 0, as of a cosine at its zero, is cut off by levels.
    demand(
        "alpha and sigma are not negative",
        least >= -1e-6 and sigma.min() > 0.0,
        least,
        "at least 0",
    )
    share = float(alpha[-1] / np.hypot(alpha[-1], sigma[-1]))
    demand(
        "it ends in noise",
        share <= _MOST_SIGNAL,
        share,
        f"alpha/sqrt(alpha² + sigma²) of at most {_MOST_SIGNAL} at t = 1, where samples are noise alone",
    )
    _keeps_digits(schedule, times, alpha, sigma)
    _falls(times, log_snr)
    _agrees(times, alpha, sigma, log_snr)
    _finite_with_slopes(found)
    _inverts(found)
    _timesteps(*found["timesteps"])
    _each_alone(schedule, found)
    _numbers_are_inputs(schedule)


@eqx.filter_jit
def _measured(schedule: AbstractSchedule, t: Float[Array, " n"]) -> dict[str, Any]:
    """All that the laws look at, from one program."""
    total = schedule.num_timesteps
    zero = jnp.zeros((), t.dtype)
    some = jnp.asarray(np.linspace(0.0103, 0.9897, 199), t.dtype)
    level, rate = _with_slopes(schedule.at, some)
    ends = jnp.concatenate([jnp.asarray([0.0, 1e-7, 1.0], t.dtype), t])
    far = jnp.asarray(
        [-1e4, LEAST_LOG_SNR - 1.0, -20.0, 0.0, 40.0, GREATEST_LOG_SNR + 1.0, 1e4], t.dtype
    )
    k = np.concatenate([np.arange(min(total, 2000)), np.arange(max(0, total - 50), total)])
    k = jnp.asarray(k, jnp.int32)
    few = t[:5]
    return {
        "begin": (schedule.alpha(zero), schedule.sigma(zero)),
        "alpha": schedule.alpha(t),
        "sigma": schedule.sigma(t),
        "log_snr": schedule.log_snr(t),
        "at": (ends, *_with_slopes(schedule.at, ends)),
        "at_log_snr": (far, *_with_slopes(schedule.at_log_snr, far)),
        "some": (some, level, rate, *_with_slopes(schedule.at_log_snr, level.log_snr)),
        "timesteps": (k, schedule.timestep_of(schedule.at_timestep(k))),
        "few": few,
        "together": schedule.at(few),
        "alone": [schedule.at(one) for one in few],
        "mapped": jax.vmap(schedule.at)(few),
        "square": schedule.at(jnp.stack([few, few[::-1]])),
    }


def _with_slopes(
    function: Callable[[Array], NoiseLevel], place: Array
) -> tuple[NoiseLevel, NoiseLevel]:
    return jax.jvp(function, (place,), (jnp.ones_like(place),))


def _begins_clean(alpha: float, sigma: float) -> None:
    demand(
        "a schedule begins clean",
        abs(alpha - 1.0) <= _ROUNDING and abs(sigma) <= _ROUNDING,
        f"alpha(0) = {alpha:.6g} and sigma(0) = {sigma:.6g}",
        "alpha(0) = 1 and sigma(0) = 0 within 1e-5, so that the last step returns x0",
        "Let both formulas run to these values at t = 0",
    )


def _falls(times: np.ndarray, log_snr: np.ndarray) -> None:
    inside = (log_snr > LEAST_LOG_SNR) & (log_snr < GREATEST_LOG_SNR)
    rises = np.diff(log_snr)
    rises = np.where(inside[1:] & inside[:-1], rises, -1.0)
    worst = int(np.argmax(rises))
    demand(
        "the log-SNR falls strictly",
        rises[worst] < 0.0,
        f"a change of {rises[worst]:.3g} from t = {times[worst]:.5f} to {times[worst + 1]:.5f}",
        "less than 0 between any two times",
        "Check that alpha falls and sigma grows there; define log_snr in a form that does not cancel",
    )


def _keeps_digits(
    schedule: AbstractSchedule, times: np.ndarray, alpha: np.ndarray, sigma: np.ndarray
) -> None:
    """Against the same formulas in double precision, at the times that single precision can hold."""
    with jax.enable_x64(True):
        wide = _widened(schedule)
        # A time that is off by a rounding moves them by their slopes: this is no fault of the formula.
        exact, moved = _twice(wide, jnp.asarray(np.stack([times, times * (1.0 + 2.0**-23)])))
        exact = {name: np.asarray(value) for name, value in exact.items()}
        moved = {name: np.asarray(value) for name, value in moved.items()}
    for name, found in (("alpha", alpha), ("sigma", sigma)):
        # alpha is of size 1 at the start; where it nears 0 its last digits are those of 1.
        floor = 1e-7 if name == "alpha" else 0.0
        allowed = _ROUNDING * np.abs(exact[name]) + 2.0 * moved[name] + floor
        off = np.abs(found - exact[name]) - allowed
        worst = int(np.argmax(off))
        relative = abs(found[worst] - exact[name][worst]) / max(abs(exact[name][worst]), 1e-30)
        demand(
            f"single precision keeps the digits of {name}",
            off[worst] <= 0.0,
            f"a relative error of {relative:.2g} at t = {times[worst]:.6f}",
            f"at most {_ROUNDING:g}",
            "Write it without a difference of nearly equal numbers: sqrt(-expm1(2·log alpha)) in place of "
            "sqrt(1 - alpha²), sin in place of sqrt(1 - cos²)",
        )


@eqx.filter_jit
def _twice(
    schedule: AbstractSchedule, times: Float[Array, "2 n"]
) -> tuple[dict[str, Array], dict[str, Array]]:
    both = {"alpha": schedule.alpha(times), "sigma": schedule.sigma(times)}
    exact = {name: value[0] for name, value in both.items()}
    return exact, {name: jnp.abs(value[1] - value[0]) for name, value in both.items()}


def _widened(schedule: AbstractSchedule) -> AbstractSchedule:
    def widen(leaf: Any) -> Any:
        inexact = eqx.is_array(leaf) and jnp.issubdtype(leaf.dtype, jnp.floating)
        return jnp.asarray(np.asarray(leaf), jnp.float64) if inexact else leaf

    return jax.tree.map(widen, schedule)


def _agrees(times: np.ndarray, alpha: np.ndarray, sigma: np.ndarray, log_snr: np.ndarray) -> None:
    # Where alpha or the log-SNR's own rounding is all there is, nothing can be compared.
    usable = (alpha > 1e-6) & (sigma > 1e-12)
    expected = 2.0 * (np.log(np.where(usable, alpha, 1.0)) - np.log(np.where(usable, sigma, 1.0)))
    allowed = 1e-4 + _ROUNDING * np.abs(expected) + 4e-7 / np.where(usable, alpha, 1.0)
    off = np.where(usable, np.abs(log_snr - expected), 0.0)
    worst = int(np.argmax(off - allowed))
    demand(
        "log_snr is log(alpha²/sigma²)",
        off[worst] <= allowed[worst],
        f"{log_snr[worst]:.6g} for {expected[worst]:.6g} at t = {times[worst]:.6f}",
        f"the same within {allowed[worst]:.1g}",
    )


def _finite_with_slopes(measured: dict[str, Any]) -> None:
    for name in ("at", "at_log_snr"):
        places, level, slopes = measured[name]
        for what, tree in (("levels are", level), ("slopes of levels are", slopes)):
            for field in _FIELDS:
                values = np.asarray(getattr(tree, field))
                bad = ~np.isfinite(values)
                where = float(np.asarray(places)[np.argmax(bad)])
                demand(
                    f"{what} finite at both ends",
                    not bad.any(),
                    f"{values[np.argmax(bad)]} for {field} of {name}({where:g})",
                    "a finite number",
                    "Keep square roots and logarithms away from 0: schedules.safe_sqrt",
                )


def _inverts(measured: dict[str, Any]) -> None:
    t, level, rates, again, slope = measured["some"]
    values, rate = np.asarray(level.log_snr), np.asarray(rates.log_snr, np.float64)
    usable = (values > LEAST_LOG_SNR + 1.0) & (values < GREATEST_LOG_SNR - 1.0)
    # The log-SNR is known to its own rounding, which a flat place of it turns into time.
    allowed = 1e-5 + 4e-7 * (1.0 + np.abs(values)) / np.maximum(np.abs(rate), 1e-9)
    off = np.where(usable, np.abs(np.asarray(again.time - t)), 0.0)
    worst = int(np.argmax(off - allowed))
    demand(
        "at_log_snr inverts the log-SNR",
        off[worst] <= allowed[worst],
        f"time {float(again.time[worst]):.6f} for {float(t[worst]):.6f}",
        f"the same within {allowed[worst]:.1g}",
        "Leave time_of_log_snr out, and it is found by bisection",
    )
    for field in ("alpha", "sigma"):
        wanted, found = (np.asarray(getattr(a, field), np.float64) for a in (level, again))
        bound = 1e-5 + 1e-6 * np.abs(values)
        off = np.where(usable, np.abs(found - wanted) / np.maximum(wanted, 1e-6), 0.0)
        worst = int(np.argmax(off - bound))
        demand(
            f"at_log_snr gives the {field} of its time",
            off[worst] <= bound[worst],
            f"{found[worst]:.6g} for {wanted[worst]:.6g} at t = {float(t[worst]):.5f}",
            f"the same to {bound[worst]:.1g}",
        )
    product = np.asarray(slope.time, np.float64) * rate
    # At a node of a table the slope has two values.
    wrong = usable & (np.abs(product - 1.0) > 2e-2)
    demand(
        "the slope of at_log_snr is that of the inverse",
        wrong.mean() < 0.05,
        f"{product[np.argmax(wrong)]:.4g} for their product at t = {float(t[np.argmax(wrong)]):.4f}",
        "1 within 2e-2",
    )
    _, beyond, _ = measured["at_log_snr"]
    for index, end in ((1, 1.0), (5, 0.0)):
        found = float(beyond.time[index])
        demand("beyond the ends at_log_snr gives the ends", found == end, found, f"time {end:g}")


def _timesteps(k: Array, snapped: Array) -> None:
    given, found = np.asarray(k), np.asarray(snapped)
    wrong = found != given
    demand(
        "timesteps survive the way through time exactly",
        not wrong.any(),
        f"{found[np.argmax(wrong)]} for timestep {given[np.argmax(wrong)]}",
        "the same integer",
    )


def _each_alone(schedule: AbstractSchedule, measured: dict[str, Any]) -> None:
    t, together, alone = (measured[name] for name in ("few", "together", "alone"))
    mapped, square, eager = measured["mapped"], measured["square"], schedule.at(t)
    for field in _FIELDS:
        values = np.asarray(getattr(together, field))
        demand(
            "an array of times gives an array of levels",
            values.shape == t.shape,
            f"shape {values.shape} for {field}",
            f"{t.shape}",
        )
        others = (
            ("each time gives", np.stack([np.asarray(getattr(a, field)) for a in alone]), values),
            ("vmap gives", np.asarray(getattr(mapped, field)), values),
            ("no compiler gives", np.asarray(getattr(eager, field)), values),
            ("two axes give", np.asarray(getattr(square, field))[0], values),
        )
        for what, found, wanted in others:
            off = float(np.max(np.abs(found - wanted) / (1.0 + np.abs(wanted))))
            demand(f"an array of times gives what {what}", off <= 1e-4, off, "equal within 1e-4")


def _numbers_are_inputs(schedule: AbstractSchedule) -> None:
    law = "numbers of a schedule may be inputs of a compiled program"

    half = jnp.asarray(0.5, float)
    try:
        found = eqx.filter_jit(lambda schedule: schedule.at(half))(as_arrays(schedule))
    except Exception as error:
        broken_by(law, error, "no error", "Use jnp in place of math, and no `if` on a number")
    known = schedule.at(half)
    off = max(float(jnp.abs(getattr(found, f) - getattr(known, f))) for f in _FIELDS)
    demand(law, off <= 1e-4, off, "the same level within 1e-4")
    floats = [
        f.name for f in dataclasses.fields(schedule) if isinstance(getattr(schedule, f.name), float)
    ]
    static = [name for name in floats if isinstance(getattr(as_arrays(schedule), name), float)]
    demand(
        law,
        not static,
        f"static fields {static}",
        "fields that are leaves",
        "Leave static=True out",
    )
