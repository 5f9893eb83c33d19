"""What an edit works with: a model, or a bare denoiser with a sampler."""

import dataclasses
from collections.abc import Callable
from typing import Any, Protocol, TypeAlias, runtime_checkable

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from diffusion_eqx._typing import Batch, Cond
from diffusion_eqx._values import as_arrays
from diffusion_eqx.denoiser import AbstractDenoiser
from diffusion_eqx.guidance import (
    AbstractGuidance,
    ClassifierFreeGuidance,
    Guided,
    find_guidance,
    with_numbers,
)
from diffusion_eqx.samplers import AbstractGrid, AbstractSampler, find_sampler, fit_cond
from diffusion_eqx.schedules import AbstractSchedule, NoiseLevel

# What is denoised of a batch of images: the images themselves, or their latents.
Denoised: TypeAlias = Float[Array, "batch *denoised"]

GuidanceLike: TypeAlias = float | str | AbstractGuidance | tuple[AbstractGuidance, ...] | None
SamplerLike: TypeAlias = str | AbstractSampler | None


@runtime_checkable
class Model(Protocol):
    """What an edit asks of a model. All models of this library are such."""

    @property
    def config(self) -> Any:
        """`config.input_shape` is the (height, width, channels) of its images."""

    def plan(
        self,
        sampler: SamplerLike = None,
        *,
        steps: int | None = None,
        guidance: GuidanceLike = None,
        **numbers: Any,
    ) -> Any:
        """A value with `denoiser`, `sampler`, `steps`, `decode`, and the `shape` of what is denoised."""

    def encode(self, images: Any) -> Denoised:
        """Images to what is denoised."""
        ...

    def fit_cond(self, count: int, labels: Any, cond: Cond, plan: Any) -> Cond:
        """The condition of `count` examples, checked."""


Source: TypeAlias = Model | AbstractDenoiser


@dataclasses.dataclass(frozen=True)
class EditPlan:
    """All that an edit needs of its source.

    - `denoiser`: with guidance.
    - `sampler`, `steps`.
    - `fit_cond`: (count, labels, cond) to the condition of each example.
    - `encode`, `decode`: from images to what is denoised, and back; None: they are the same.
    - `shape`, `image_shape`: of what is denoised and of an image; None: not known.
    """

    denoiser: AbstractDenoiser
    sampler: AbstractSampler
    steps: int
    fit_cond: Callable[[int, Any, Cond], Cond]
    encode: Callable[[Any], Batch] | None = None
    decode: Callable[[Batch], Batch] | None = None
    shape: tuple[int, ...] | None = None
    image_shape: tuple[int, ...] | None = None

    def images(self, given: Any) -> Batch:
        """Images as they were given, checked.

        **Raises:** `ValueError` if they are not floats, or not a batch of the model's images.
        """
        images = jnp.asarray(given)
        if not jnp.issubdtype(images.dtype, jnp.floating):
            raise ValueError(
                f"images are floats in [-1, 1]; got {images.dtype}. Bytes 0 … 255 become such by "
                "dx.data.to_unit_range"
            )
        if self.image_shape is None or images.shape[1:] == self.image_shape:
            return images
        if images.shape == self.image_shape:
            raise ValueError(f"one image alone of shape {images.shape}: give a batch, image[None]")
        raise ValueError(
            f"the model's images have shape {self.image_shape} each; got a batch of shape {images.shape}"
        )

    def level(self, index: int) -> NoiseLevel:
        """The level of the grid at an index."""
        number = jnp.asarray(index, jnp.int32), jnp.asarray(self.steps, jnp.int32)
        return _level(as_arrays(self.sampler.grid), as_arrays(self.denoiser.schedule), *number)

    def encoded(self, images: Batch) -> Denoised:
        """What is denoised of checked images."""
        return images if self.encode is None else self.encode(images)


@eqx.filter_jit
def _level(
    grid: AbstractGrid, schedule: AbstractSchedule, index: Array, steps: Array
) -> NoiseLevel:
    return grid(schedule, index, steps)


def plan_of(
    source: Source,
    sampler: SamplerLike,
    steps: int | None,
    guidance: GuidanceLike,
    numbers: dict[str, Any],
) -> EditPlan:
    """The plan of an edit.

    - `source`: a model, whose `plan` then gives everything; or a denoiser.
    - `sampler`, `steps`: None is what the model recommends. A denoiser recommends nothing.
    - `guidance`: as in `model.sample`. Around a denoiser a number is classifier-free guidance at that
      scale.
    - `numbers`: of sampler and guidance, by name.

    **Raises:** `ValueError` if a denoiser comes without sampler or steps, for an unknown name, or a number
    out of range.
    """
    if isinstance(source, AbstractDenoiser):
        return _plan_of_denoiser(source, sampler, steps, guidance, numbers)
    if not isinstance(source, Model):
        raise ValueError(f"an edit needs a model or a denoiser; got {type(source).__name__}")
    plan = source.plan(sampler, steps=steps, guidance=guidance, **numbers)
    return EditPlan(
        plan.denoiser,
        plan.sampler,
        plan.steps,
        lambda count, labels, cond: source.fit_cond(count, labels, cond, plan),
        source.encode,
        plan.decode,
        tuple(plan.shape),
        tuple(source.config.input_shape),
    )


def _plan_of_denoiser(
    denoiser: AbstractDenoiser,
    sampler: SamplerLike,
    steps: int | None,
    guidance: GuidanceLike,
    numbers: dict[str, Any],
) -> EditPlan:
    if sampler is None or steps is None:
        missing = "sampler" if sampler is None else "steps"
        raise ValueError(
            f"a denoiser recommends no {missing}; give sampler= and steps=, or a model in its place"
        )
    method = find_sampler(sampler) if isinstance(sampler, str) else sampler
    denoiser, method, several = with_numbers((denoiser, method, _guidance(guidance)), numbers)
    guided = Guided(denoiser, several) if several else denoiser
    return EditPlan(guided, method, steps, _cond_of)


def _guidance(given: GuidanceLike) -> tuple[AbstractGuidance, ...]:
    if given is None:
        return ()
    if isinstance(given, int | float):
        return (ClassifierFreeGuidance(float(given)),)
    if isinstance(given, str):
        return (find_guidance(given),)
    return given if isinstance(given, tuple) else (given,)


def _cond_of(count: int, labels: Any, cond: Cond) -> Cond:
    if labels is None:
        return fit_cond(cond, count)
    if cond is not None and (not isinstance(cond, dict) or "label" in cond):
        raise ValueError("labels are given twice: as labels, and in cond; give them once")
    return fit_cond({**(cond or {}), "label": jnp.asarray(labels)}, count)
