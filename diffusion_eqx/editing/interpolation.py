"""Interpolation of images along the sphere of their noises."""

from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from diffusion_eqx._typing import Cond
from diffusion_eqx.editing.inversion import inverted, invertible_plan
from diffusion_eqx.editing.slerp import slerp
from diffusion_eqx.editing.source import GuidanceLike, SamplerLike, Source
from diffusion_eqx.samplers import sample_from


def interpolate(
    source: Source,
    first: ArrayLike,
    second: ArrayLike,
    count: int,
    *,
    sampler: SamplerLike = None,
    steps: int | None = None,
    labels: Any = None,
    cond: Cond = None,
    guidance: GuidanceLike = None,
    iterations: int = 3,
    **numbers: Any,
) -> Float[Array, "count batch *shape"]:
    """Images on the way from `first` to `second`: both inverted, `slerp` between their noises, sampled.

    Section 5.3 of Song et al. (2021). The ends are included, and return the two images up to the error of
    `ddim_invert`.

    - `source`: a model, or a denoiser with `steps`.
    - `first`, `second`: (batch, height, width, channels) in [−1, 1].
    - `count`: how many images for each pair, at equal distances.
    - `labels`, `cond`: one for all pairs or one for each. Leave them out for images of different classes.
    - `sampler`, `steps`, `guidance`, `iterations`, `numbers`: as in `ddim_invert_to`.

    Returns (count, batch, height, width, channels).

    **Raises:** `ValueError` if `count` < 2, the shapes differ, or as `ddim_invert_to`.
    """
    if count < 2:
        raise ValueError(f"count must be at least 2, for the two ends; got {count}")
    plan = invertible_plan(source, sampler, steps, guidance, numbers)
    ends = plan.images(first), plan.images(second)
    if ends[0].shape != ends[1].shape:
        raise ValueError(
            f"the images to interpolate must have one shape; got {ends[0].shape} and {ends[1].shape}"
        )
    pairs = len(ends[0])
    fitted = plan.fit_cond(pairs, labels, cond)

    def repeated(times: int) -> Cond:
        return jax.tree.map(lambda c: jnp.concatenate([c] * times), fitted)

    x = inverted(plan, jnp.concatenate(ends), 0, iterations, repeated(2))
    noise = x / plan.level(0).sigma
    between = [slerp(noise[:pairs], noise[pairs:], i / (count - 1)) for i in range(count)]
    drawn = sample_from(
        plan.denoiser,
        plan.sampler,
        jnp.concatenate(between),
        steps=plan.steps,
        cond=repeated(count),
        decode=plan.decode,
    )
    return drawn.reshape(count, *ends[0].shape)
