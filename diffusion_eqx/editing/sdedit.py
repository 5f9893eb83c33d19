"""SDEdit: noise an image, then denoise it (Meng et al. 2022)."""

from typing import Any

from jax.typing import ArrayLike

from diffusion_eqx._typing import Batch, Cond, PRNGKey
from diffusion_eqx.editing.source import GuidanceLike, SamplerLike, Source, plan_of
from diffusion_eqx.editing.strength import begin_index
from diffusion_eqx.samplers import draw, image_keys, sample_between


def sdedit(
    source: Source,
    images: ArrayLike,
    strength: float,
    *,
    sampler: SamplerLike = None,
    steps: int | None = None,
    labels: Any = None,
    cond: Cond = None,
    guidance: GuidanceLike = None,
    key: PRNGKey,
    **numbers: Any,
) -> Batch:
    """Noise images to the level at which the share `strength` of the steps is left, and take these steps.

    Algorithm 1 of Meng et al. (2022). With more noise the result is more realistic and less faithful: what
    is larger than the noise stays, such as the layout; what is smaller is drawn anew. The condition may ask
    for something else than the images show. Cost: strength·steps steps.

    - `source`: a model, or a denoiser with `sampler` and `steps`.
    - `images`: (batch, height, width, channels) in [−1, 1].
    - `strength`: in (0, 1]. 1 is sampling from the start, with no more of the images than the first level
      has signal.
    - `sampler`, `steps`, `labels`, `cond`, `guidance`, `numbers`: as in `model.sample`.

    Returns the shape of `images`.

    **Raises:** `ValueError` if strength is outside (0, 1], the images do not fit the model, or as
    `model.sample`.
    """
    plan = plan_of(source, sampler, steps, guidance, numbers)
    begin = begin_index(strength, plan.steps)
    clean = plan.encoded(plan.images(images))
    count = len(clean)
    # The noise is that with which sampling from the same key begins.
    noise = draw(image_keys(key, count), 0, clean.shape[1:])
    return sample_between(
        plan.denoiser,
        plan.sampler,
        plan.level(begin).noised(clean, noise),
        begin=begin,
        end=plan.steps,
        steps=plan.steps,
        key=key,
        cond=plan.fit_cond(count, labels, cond),
        decode=plan.decode,
    )
