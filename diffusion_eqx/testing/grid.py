"""The laws of a grid."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from diffusion_eqx._values import as_arrays
from diffusion_eqx.samplers import AbstractGrid
from diffusion_eqx.schedules import AbstractSchedule, NoiseLevel
from diffusion_eqx.testing.law import broken_by, demand, demand_instance


def check_grid(
    grid: AbstractGrid, schedule: AbstractSchedule, *, steps: tuple[int, ...] = (1, 2, 3, 10, 50)
) -> None:
    """Check the laws that a grid must keep on a schedule.

    - It has at least one of the numbers of `steps`, and refuses 0 and −3 steps.
    - Levels are finite and ever cleaner; the first has noise, and the last is clean, or as clean as
      asked for.
    - A table of indices gives what each index gives, and so do indices and numbers of steps for each image.

    One CPU device cannot show how another rounds its levels.

    **Raises:** `LawBroken`, which names the law, what was found and what is owed.
    """
    demand_instance(grid, AbstractGrid)
    for number in (0, -3):
        try:
            grid.check(schedule, number)
        except ValueError:
            continue
        demand(
            "impossible numbers of steps are refused",
            False,
            f"{number} steps allowed",
            "a ValueError",
        )
    usable = []
    for number in steps:
        try:
            grid.check(schedule, number)
        except ValueError:
            continue
        usable.append(number)
    demand("a grid has some number of steps", usable, f"none of {steps}", "at least one")
    most = max(usable)
    for number in usable:
        try:
            table, each = _levels(as_arrays(grid), schedule, most, jnp.asarray(number, jnp.int32))
        except Exception as error:
            broken_by("index and steps may be arrays", error, "no error")
        table, each = table[: number + 1], each[: number + 1]
        _one(table, number)
        for field in ("time", "alpha", "sigma", "log_snr"):
            one, other = (np.asarray(getattr(level, field), np.float64) for level in (table, each))
            off = float(np.max(np.abs(one - other) / (1.0 + np.abs(one))))
            demand("one index gives what the table gives", off <= 3e-5, off, "equal within 3e-5")


@eqx.filter_jit
def _levels(
    grid: AbstractGrid, schedule: AbstractSchedule, most: int, steps: Array
) -> tuple[NoiseLevel, NoiseLevel]:
    # One program for all numbers of steps: what lies beyond the last is the last.
    index = jnp.minimum(jnp.arange(most + 1, dtype=jnp.int32), steps)
    table = grid(schedule, index, steps)

    def single(i: Array) -> NoiseLevel:
        return grid(schedule, i, steps)

    return table, jax.lax.map(single, index)


def _one(level: NoiseLevel, steps: int) -> None:
    values = {f: np.asarray(getattr(level, f)) for f in ("time", "alpha", "sigma", "log_snr")}
    finite = all(np.isfinite(v).all() for v in values.values())
    demand("levels are finite", finite, f"NaN or infinity in {steps} steps", "finite numbers")
    demand(
        "the first level has noise",
        values["sigma"][0] > 0.0,
        float(values["sigma"][0]),
        "sigma > 0",
    )
    rises = np.diff(values["log_snr"])
    worst = int(np.argmin(rises))
    demand(
        "levels are ever cleaner",
        rises[worst] > 0.0,
        f"log-SNR {values['log_snr'][worst]:.5g} and then {values['log_snr'][worst + 1]:.5g} "
        f"(step {worst} of {steps})",
        "a rise at every step",
    )
