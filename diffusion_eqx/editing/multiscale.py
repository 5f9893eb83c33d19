"""Coarse to fine: sample small, enlarge, noise, refine."""

from collections.abc import Sequence
from typing import Literal

import jax

from diffusion_eqx._typing import Cond, Images, PRNGKey
from diffusion_eqx.editing.sdedit import sdedit
from diffusion_eqx.samplers.base import AbstractSampler
from diffusion_eqx.samplers.drive import sample


def sample_multiscale(
    stages: Sequence[tuple[AbstractSampler, tuple[int, int, int]]],
    *,
    strength: float,
    steps: int,
    count: int,
    key: PRNGKey,
    cond: Cond = None,
    method: Literal["nearest", "linear", "cubic"] = "linear",
) -> Images:
    """Draw `count` images with the first stage; enlarge and refine them with each further one.

    A stage is a sampler and the (height, width, channels) that its model draws, the coarsest first. A
    refinement is `sdedit` of the enlarged images: `strength` must be enough for its noise to cover the
    details that enlarging could not know, and how it blurred those that it did (the reasoning of cascades
    with noise augmentation, Ho et al. 2022, section 4). Cost: `steps` of the coarsest model, and
    strength·steps of each other. Returns (count, height, width, channels) of the last stage.

    **Raises:** `ValueError` if there are no stages, or strength is outside (0, 1].
    """
    if not stages:
        raise ValueError("multi-scale sampling needs at least one stage")
    sampler, shape = stages[0]
    images = sample(
        sampler, shape, count=count, steps=steps, key=jax.random.fold_in(key, 0), cond=cond
    )
    for level, (sampler, shape) in enumerate(stages[1:], start=1):
        enlarged = jax.image.resize(images, (count, *shape), method)
        own = jax.random.fold_in(key, level)
        images = sdedit(sampler, enlarged, strength=strength, steps=steps, key=own, cond=cond)
    return images
