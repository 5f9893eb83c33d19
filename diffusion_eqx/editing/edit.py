"""Editing by inversion: invert under one condition, sample under another."""

from typing import Any

from jax.typing import ArrayLike

from diffusion_eqx._typing import Batch, Cond
from diffusion_eqx.editing.inversion import inverted, invertible_plan
from diffusion_eqx.editing.source import GuidanceLike, SamplerLike, Source
from diffusion_eqx.editing.strength import begin_index
from diffusion_eqx.samplers import sample_between


def edit_by_inversion(
    source: Source,
    images: ArrayLike,
    *,
    source_labels: Any = None,
    target_labels: Any = None,
    source_cond: Cond = None,
    target_cond: Cond = None,
    strength: float = 1.0,
    sampler: SamplerLike = None,
    steps: int | None = None,
    guidance: GuidanceLike = None,
    iterations: int = 3,
    **numbers: Any,
) -> Batch:
    """Change what images show from the source's labels to the target's, and keep the rest.

    The images are inverted under the source's condition, up to the level of the grid at which the share
    `strength` of the steps is left. From there they are sampled under the target's (as in Su et al. 2023,
    with classes in place of domains). With equal conditions the images return. Cost:
    strength·steps·(iterations + 1) evaluations.

    - `source`: a model, or a denoiser with `steps`.
    - `images`: (batch, height, width, channels) in [−1, 1].
    - `source_labels`, `target_labels`: the class that the images show, and the one that they shall show;
      one for all or one for each, or None for no class.
    - `source_cond`, `target_cond`: further parts of the two conditions, as `cond` in `model.sample`.
    - `strength`: in (0, 1]. A lower one keeps more.
    - `guidance`, `numbers`: of the way to the target only. Inversion is exact only without strong guidance,
      so the way up is not guided.
    - `sampler`, `steps`, `iterations`: as in `ddim_invert_to`.

    Returns the shape of `images`.

    **Raises:** `ValueError` if strength is outside (0, 1], or as `ddim_invert_to`.
    """
    way_up = invertible_plan(source, sampler, steps, None, {})
    way_down = invertible_plan(source, sampler, steps, guidance, numbers)
    begin = begin_index(strength, way_up.steps)
    given = way_up.images(images)
    shown = way_up.fit_cond(len(given), source_labels, source_cond)
    x = inverted(way_up, given, begin, iterations, shown)
    return sample_between(
        way_down.denoiser,
        way_down.sampler,
        x,
        begin=begin,
        end=way_down.steps,
        steps=way_down.steps,
        cond=way_down.fit_cond(len(x), target_labels, target_cond),
        decode=way_down.decode,
    )
