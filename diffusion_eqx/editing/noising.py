"""How far back an edit begins, and images noised to there."""

import math

from diffusion_eqx._typing import Batch, BatchKeys
from diffusion_eqx.samplers.base import AbstractSampler
from diffusion_eqx.samplers.noise import draw


def begin_index(strength: float, steps: int) -> int:
    """The index of a grid of `steps` from which the share `strength` of its steps is left to take.

    steps − strength·steps, rounded, with one step at the least.

    **Raises:** `ValueError` if strength is outside (0, 1], or `steps` < 1.
    """
    if not 0.0 < strength <= 1.0:
        raise ValueError(f"strength must be in (0, 1]; got {strength}")
    if steps < 1:
        raise ValueError(f"steps must be at least 1; got {steps}")
    return steps - max(1, math.floor(strength * steps + 0.5))


def noised(
    sampler: AbstractSampler, images: Batch, *, index: int, steps: int, keys: BatchKeys
) -> Batch:
    """Images noised to the grid's time at `index`: x_t = alpha·images + sigma·noise.

    The noise of each is that with which sampling from its key would begin.
    """
    schedule = sampler.denoiser.schedule
    t = sampler.grid(schedule, index, steps)
    return schedule.perturb(images, t, draw(keys, 0, images.shape[1:]))
