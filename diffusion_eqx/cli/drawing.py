"""How commands draw from a model."""

import sys
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from diffusion_eqx.models import AbstractDiffusionModel, Plan


def check_seed(seed: int) -> None:
    """Refuse a seed that is none.

    **Raises:** `ValueError`.
    """
    if not 0 <= seed < 2**32:
        raise ValueError(f"--seed must be in 0 … {2**32 - 1}; got {seed}")


def tell_idle_guidance(plan: "Plan") -> None:
    """Print a line if a guidance acts in none of the steps."""
    import jax.numpy as jnp

    from diffusion_eqx.guidance import guidance_of

    intervals = [getattr(one, "interval", None) for one in guidance_of(plan.denoiser)]
    if all(interval is None for interval in intervals):
        return
    steps = jnp.arange(plan.steps)
    times = plan.sampler.grid(plan.denoiser.schedule, steps, jnp.asarray(plan.steps)).time
    for interval in intervals:
        if interval is not None and not ((times >= interval[0]) & (times <= interval[1])).any():
            print(
                f"the guidance acts between the times {float(interval[0]):g} and {float(interval[1]):g}, "
                f"and none of the {plan.steps} steps begins there: it has no effect; take more steps",
                file=sys.stderr,
            )


def draw(
    model: "AbstractDiffusionModel", count: int, sampler: str | None, **options: Any
) -> np.ndarray:
    """Images (count, height, width, channels) in [−1, 1].

    - `options`: those of `model.sample_batches`.

    **Raises:** `ValueError` as it; `ArithmeticError` if a number is not finite.
    """
    images = np.concatenate(list(model.sample_batches(count, sampler, **options)))
    if not np.isfinite(images).all():
        raise ArithmeticError("some images are not finite: the model met numbers it cannot handle")
    return images
