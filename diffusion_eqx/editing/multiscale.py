"""Coarse to fine: sample small, enlarge, noise, refine."""

from collections.abc import Sequence
from typing import Any, Literal

import jax

from diffusion_eqx._typing import Batch, Cond, PRNGKey
from diffusion_eqx.editing.sdedit import sdedit
from diffusion_eqx.editing.source import EditPlan, GuidanceLike, SamplerLike, Source, plan_of
from diffusion_eqx.samplers import sample


def sample_multiscale(
    sources: Sequence[Source],
    count: int,
    *,
    strength: float,
    shapes: Sequence[tuple[int, ...]] | None = None,
    sampler: SamplerLike = None,
    steps: int | None = None,
    labels: Any = None,
    cond: Cond = None,
    guidance: GuidanceLike = None,
    key: PRNGKey,
    method: Literal["nearest", "linear", "cubic"] = "linear",
    **numbers: Any,
) -> Batch:
    """Draw `count` images from the first source; enlarge and refine them with each further one.

    A refinement is `sdedit` of the enlarged images. Its noise must cover the details that enlarging could
    not know, and how it blurred those that it did (the reasoning of cascades with noise augmentation, Ho et
    al. 2022, section 4). Cost: all steps of the coarsest source, and the share `strength` of the steps of
    each other.

    - `sources`: models, or denoisers with `shapes`, `sampler` and `steps`; the coarsest first.
    - `strength`: of each refinement, in (0, 1].
    - `shapes`: the (height, width, channels) of the images of each source; models know theirs.
    - `method`: how images are enlarged.
    - the others: as in `model.sample`, for every source.

    Returns (count, height, width, channels) of the last source.

    **Raises:** `ValueError` if there are no sources, a denoiser comes without its shape, strength is
    outside (0, 1], or as `model.sample`.
    """
    if not sources:
        raise ValueError("coarse to fine needs at least one source: a model or a denoiser")
    if shapes is not None and len(shapes) != len(sources):
        raise ValueError(
            f"there are {len(sources)} sources, but {len(shapes)} shapes; give one for each"
        )
    plans = [plan_of(source, sampler, steps, guidance, numbers) for source in sources]
    sizes = [_image_shape(plan, shapes, number) for number, plan in enumerate(plans)]
    coarsest = plans[0]
    images = sample(
        coarsest.denoiser,
        coarsest.sampler,
        coarsest.shape or sizes[0],
        count=count,
        steps=coarsest.steps,
        key=jax.random.fold_in(key, 0),
        cond=coarsest.fit_cond(count, labels, cond),
        decode=coarsest.decode,
    )
    for number, (source, size) in enumerate(zip(sources[1:], sizes[1:], strict=True), start=1):
        images = sdedit(
            source,
            jax.image.resize(images, (count, *size), method),
            strength,
            sampler=sampler,
            steps=steps,
            labels=labels,
            cond=cond,
            guidance=guidance,
            key=jax.random.fold_in(key, number),
            **numbers,
        )
    return images


def _image_shape(
    plan: EditPlan, shapes: Sequence[tuple[int, ...]] | None, number: int
) -> tuple[int, ...]:
    if plan.image_shape is not None:
        return plan.image_shape
    if shapes is None:
        raise ValueError(
            "a denoiser does not say what shape its images have; give shapes=[(height, width, channels), …]"
        )
    return tuple(shapes[number])
