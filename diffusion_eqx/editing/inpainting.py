"""Inpainting: fill in a part of each image, and keep the rest."""

from typing import Any, TypeAlias

import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Bool

from diffusion_eqx._typing import Batch, Cond, PRNGKey
from diffusion_eqx.denoiser import AbstractDenoiser
from diffusion_eqx.editing.inpainting_sampler import (
    KNOWN,
    KNOWN_MASK,
    InpaintingSampler,
    takes_single_steps,
)
from diffusion_eqx.editing.source import (
    Denoised,
    EditPlan,
    GuidanceLike,
    SamplerLike,
    Source,
    plan_of,
)
from diffusion_eqx.samplers import DDIMSampler, sample

Mask: TypeAlias = Bool[Array, "masks *mask_shape"]


def inpaint(
    source: Source,
    images: ArrayLike,
    mask: ArrayLike,
    *,
    resample: int = 1,
    jump: int = 1,
    sampler: SamplerLike = None,
    steps: int | None = None,
    labels: Any = None,
    cond: Cond = None,
    guidance: GuidanceLike = None,
    key: PRNGKey,
    **numbers: Any,
) -> Batch:
    """Draw anew what the mask marks; every other pixel of the result is that of `images`, bit for bit.

    The method is that of `InpaintingSampler`. A model of latents fills in every latent pixel that covers a
    marked pixel of the image.

    - `source`: a model, or a denoiser with `sampler` and `steps`.
    - `images`: (batch, height, width, channels) in [−1, 1].
    - `mask`: (batch or 1, height, width, channels or 1). 1 or true: to be filled in; 0: kept.
    - `resample`, `jump`: RePaint's repetitions. With 10 of them what is filled in fits far better, at 10
      times the cost.
    - `sampler`: None is the one that the model recommends, or `DDIMSampler()` where that one remembers
      earlier steps.
    - `steps`, `labels`, `cond`, `guidance`, `numbers`: as in `model.sample`.

    Returns the shape of `images`.

    **Raises:** `ValueError` if the mask does not fit the images, or as `InpaintingSampler` and
    `model.sample`.
    """
    plan = _plan(source, sampler, steps, guidance, numbers)
    known = plan.images(images)
    marked = _checked(mask, known)
    latents = plan.encoded(known)
    fitted = plan.fit_cond(len(known), labels, cond)
    parts = fitted if isinstance(fitted, dict) else {} if fitted is None else {"label": fitted}
    filled = sample(
        plan.denoiser,
        InpaintingSampler(plan.sampler, resample, jump),
        latents.shape[1:],
        count=len(known),
        steps=plan.steps,
        key=key,
        cond={**parts, KNOWN: latents, KNOWN_MASK: _over_latents(marked, known, latents)},
        decode=plan.decode,
    )
    return jnp.where(marked, filled, known)


def _plan(
    source: Source,
    sampler: SamplerLike,
    steps: int | None,
    guidance: GuidanceLike,
    numbers: dict[str, Any],
) -> EditPlan:
    if sampler is None and not isinstance(source, AbstractDenoiser):
        recommended = plan_of(source, None, steps, None, {})
        if not takes_single_steps(recommended.sampler):
            sampler, steps = DDIMSampler(), recommended.steps
    return plan_of(source, sampler, steps, guidance, numbers)


def _checked(mask: ArrayLike, images: Batch) -> Mask:
    given = jnp.asarray(mask)
    fits = given.ndim == images.ndim and all(
        m in (1, n) for m, n in zip(given.shape, images.shape, strict=True)
    )
    if not fits:
        raise ValueError(
            f"a mask of shape {given.shape} does not fit images of shape {images.shape}; give "
            "(batch or 1, height, width, channels or 1)"
        )
    return given if given.dtype == bool else given > 0.5


def _over_latents(
    mask: Mask, images: Batch, latents: Denoised
) -> Bool[Array, "masks *latent_mask"]:
    """Which latent pixels cover something that is marked."""
    if latents.shape == images.shape:
        return mask
    whole = jnp.broadcast_to(mask.any(axis=-1), (len(mask), *images.shape[1:-1]))
    height, width = latents.shape[1:3]
    blocks = whole.reshape(len(mask), height, images.shape[1] // height, width, -1)
    return blocks.any(axis=(2, 4))[..., None]
