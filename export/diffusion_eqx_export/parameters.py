"""What may be chosen at run time: the numbers that a sampler and its guidance declare (FORMAT.md, 3.3)."""

import math
from typing import Any

import numpy as np

from diffusion_eqx.models import Plan
from diffusion_eqx.samplers import numbers


def describe(plan: Plan) -> dict[str, dict[str, Any]]:
    """The manifest's `parameters`: steps, then the numbers of the sampler and of the guidance, by name.

    A number that was given as a function of the level, or as an array of several, is a part of the programs
    and cannot be chosen.

    **Raises:** `ValueError` if two numbers have one name, or one has no finite range.
    """
    least, most = _steps_allowed(plan)
    described = {"steps": _described("I32", plan.steps, least, most, "denoising steps")}
    for name, number in numbers((plan.sampler, plan.denoiser)).items():
        if callable(number.value) or np.shape(number.value) != ():
            continue
        if name == "steps":
            raise ValueError(
                "a number of the sampler or the guidance is called steps, as the number of steps is; "
                "rename it"
            )
        if not (math.isfinite(number.minimum) and math.isfinite(number.maximum)):
            raise ValueError(f"{name} has no finite range; declare its minimum and its maximum")
        default = float(number.value)
        described[name] = _described("F32", default, number.minimum, number.maximum, number.about)
    return described


def steps_for(plan: Plan, wanted: int) -> int:
    """The number of steps nearest to `wanted` that the plan's grid has."""
    least, most = _steps_allowed(plan)
    return min(max(wanted, least), most)


def _steps_allowed(plan: Plan) -> tuple[int, int]:
    """The least and the greatest number of steps around the plan's own that its grid has."""
    least = most = plan.steps
    while least > 1 and _has(plan, least - 1):
        least -= 1
    while most < plan.denoiser.schedule.num_timesteps and _has(plan, most + 1):
        most += 1
    return least, most


def _has(plan: Plan, steps: int) -> bool:
    try:
        plan.sampler.grid.check(plan.denoiser.schedule, steps)
    except ValueError:
        return False
    return True


def _described(dtype: str, default: float, low: float, high: float, about: str) -> dict[str, Any]:
    return {"dtype": dtype, "default": default, "min": low, "max": high, "about": about}
