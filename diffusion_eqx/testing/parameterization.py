"""The laws of a parameterization on a schedule."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from diffusion_eqx.denoiser import Denoiser
from diffusion_eqx.parameterizations import AbstractParameterization, Coefficients
from diffusion_eqx.schedules import AbstractSchedule, NoiseLevel
from diffusion_eqx.testing.law import broken_by, demand, demand_instance


def check_parameterization(
    parameterization: AbstractParameterization, schedule: AbstractSchedule
) -> None:
    """Check the laws that a parameterization must keep at every level of a schedule.

    - Its coefficients are finite from the first timestep to t = 1, and the network acts (c_out is not 0).
    - They have the shape of the level: one for all examples, or one for each.
    - A network that gives the target gives back x0, and with it the noise, to rounding.
    - It is an affine map: the target of x0 is that of its four coefficients.
    - Each example is judged by its own level, whatever the others' (as many examples as channels).
    - The derivative of x0 by the network's output is finite.

    One CPU device cannot show what half precision makes of the target's size.

    **Raises:** `LawBroken`, which names the law, what was found and what is owed.
    """
    demand_instance(parameterization, AbstractParameterization)
    total = schedule.num_timesteps
    k = np.unique(np.linspace(0, total - 1, 97).astype(int))
    times = np.unique(np.concatenate([(k + 1.0) / total, np.linspace(1.0 / total, 1.0, 53)]))
    times = jnp.asarray(times, float)
    found = _measured(parameterization, schedule, times)
    for name, values in found["each"]._asdict().items():
        values = np.asarray(values)
        demand(
            "coefficients have the shape of the level",
            values.shape == times.shape and np.shape(getattr(found["one"], name)) == (),
            f"{values.shape} and {np.shape(getattr(found['one'], name))} for {name}",
            f"{times.shape} and ()",
        )
        bad = ~np.isfinite(values) | ((name == "c_out") & (values == 0.0))
        where = float(times[np.argmax(bad)])
        demand(
            "coefficients are finite at every level, and the network acts",
            not bad.any(),
            f"{name} = {values[np.argmax(bad)]} at t = {where:.6g}",
            "a finite number, and c_out other than 0",
            "Where nothing of the signal is left, predict x0 or v; Denoiser refuses other pairs",
        )
    for what in ("x0", "eps"):
        off, allowed = (np.asarray(found[what][part], np.float64) for part in ("off", "allowed"))
        worst = int(np.argmax(off / allowed))
        demand(
            f"the target gives back {what}",
            off[worst] <= allowed[worst],
            f"an error of {off[worst]:.3g} at t = {float(times[worst]):.6g}",
            f"at most {allowed[worst]:.3g}",
            "c_skip and c_out must be those of one affine map",
        )
    demand(
        "x0 has a finite derivative by the output",
        np.isfinite(found["slope"]).all(),
        float(np.abs(found["slope"]).max()),
        "a finite number",
    )
    off = float(found["apart"])
    demand("each example is judged by its own level", off <= 1e-4, off, "equal within 1e-4")
    try:
        Denoiser(_no_network, schedule, parameterization)
    except ValueError as error:
        broken_by("a denoiser takes the pair", error, "no error")


def _no_network(x: Array, c_noise: Array, cond: Any, *, key: Any) -> Array:
    return x


@eqx.filter_jit
def _measured(
    parameterization: AbstractParameterization, schedule: AbstractSchedule, times: Array
) -> dict[str, Any]:
    level = schedule.at(times)
    # Built here, where numbers are traced, so that it is not refused before the laws are looked at.
    traced = eqx.combine(*eqx.partition(schedule, eqx.is_array))
    each = parameterization.coefficients(traced, level)
    one = parameterization.coefficients(traced, level[len(times) // 2])
    x0 = jnp.asarray(np.random.default_rng(0).uniform(-1, 1, (len(times), 4)), times.dtype)
    eps = jnp.asarray(np.random.default_rng(1).standard_normal((len(times), 4)), times.dtype)
    x = level.noised(x0, eps)
    column = jax.tree.map(lambda c: jnp.broadcast_to(c, times.shape)[:, None], each)
    output = (x0 - column.c_skip * x) / column.c_out

    def clean(output: Array) -> Array:
        return column.c_skip * x + column.c_out * output

    again, slope = jax.jvp(clean, (output,), (jnp.ones_like(output),))
    # Rounding of the two terms, which cancel where x0 is small beside them.
    rounding = float(jnp.finfo(times.dtype).eps)
    size = jnp.abs(column.c_skip * x) + jnp.abs(column.c_out * output) + jnp.abs(x0)
    allowed = 16.0 * rounding * size.max(axis=1)
    off_eps = jnp.abs(level.eps(x, again) - eps).max(axis=1)
    ratio = level.alpha / level.sigma
    few = jnp.asarray([0, len(times) // 2])
    return {
        "each": each,
        "one": one,
        "slope": slope,
        "x0": {"off": jnp.abs(again - x0).max(axis=1), "allowed": allowed},
        "eps": {
            "off": off_eps,
            "allowed": ratio * allowed
            + 16.0 * rounding * ((jnp.abs(x).max(axis=1) + level.alpha) / level.sigma + 1.0),
        },
        "apart": _apart(parameterization, schedule, level[few], x[few][:, :2], output[few][:, :2]),
    }


def _apart(
    parameterization: AbstractParameterization,
    schedule: AbstractSchedule,
    level: NoiseLevel,
    x: Array,
    output: Array,
) -> Array:
    """Two examples of two channels: how far each is from itself alone."""

    def x0(c: Coefficients, x: Array, output: Array) -> Array:
        c = jax.tree.map(
            lambda a: a.reshape(a.shape + (1,) * (x.ndim - a.ndim if a.ndim else 0)), c
        )
        return c.c_skip * x + c.c_out * output

    both = x0(parameterization.coefficients(schedule, level), x, output)
    alone = [
        x0(parameterization.coefficients(schedule, level[i]), x[i : i + 1], output[i : i + 1])
        for i in range(2)
    ]
    size = 1.0 + jnp.abs(both)
    return jnp.max(jnp.abs(both - jnp.concatenate(alone)) / size)
