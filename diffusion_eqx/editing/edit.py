"""Editing by inversion: invert under one condition, sample under another."""

import jax

from diffusion_eqx._typing import Batch, Cond
from diffusion_eqx.denoiser import AbstractDenoiser
from diffusion_eqx.editing.inversion import ddim_invert_to
from diffusion_eqx.editing.noising import begin_index
from diffusion_eqx.samplers.ddim import DDIMSampler
from diffusion_eqx.samplers.drive import sample_between


def edit_by_inversion(
    sampler: DDIMSampler,
    images: Batch,
    *,
    source: Cond,
    target: Cond,
    steps: int,
    strength: float = 1.0,
    iterations: int = 3,
    guided: AbstractDenoiser | None = None,
) -> Batch:
    """Change what `images` show from `source` to `target`, keeping the rest.

    The images are inverted under `source`, up to the point of the grid at which `strength` of its steps
    are left, and sampled from there under `target` (as in Su et al. 2023, with classes in place of
    domains). With `target` = `source` they return. Lower strengths keep more. Inversion is exact only
    without strong guidance, so guidance towards the target has a denoiser of its own, `guided`, with which
    the way back is taken. Cost: strength·steps·(iterations + 1) evaluations. Returns the shape of `images`.

    **Raises:** `ValueError` if strength is outside (0, 1], or as `ddim_invert`.
    """
    begin = begin_index(strength, steps)
    x_t = ddim_invert_to(
        sampler, images, begin=begin, steps=steps, iterations=iterations, cond=source
    )
    back = sampler if guided is None else DDIMSampler(guided, sampler.grid)
    # Deterministic: the key decides nothing.
    key = jax.random.key(0)
    return sample_between(back, x_t, begin=begin, end=steps, steps=steps, key=key, cond=target)
