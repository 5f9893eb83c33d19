"""How a model is drawn with.

The denoiser as guided, the sampler, the steps and the decoding, in one value.
"""

import dataclasses
import difflib
from typing import Any

import equinox as eqx
from jaxtyping import Array, Float

from diffusion_eqx._typing import Batch
from diffusion_eqx._values import check_kind
from diffusion_eqx.config import ModelConfig, SamplerConfig
from diffusion_eqx.denoiser import AbstractDenoiser
from diffusion_eqx.guidance import (
    AbstractGuidance,
    AbstractLimiter,
    AbstractTwoBranchGuidance,
    Autoguidance,
    ClassifierFreeGuidance,
    Clipping,
    Guided,
    find_guidance,
)
from diffusion_eqx.samplers import (
    AbstractGrid,
    AbstractNoise,
    AbstractSampler,
    check_pair_kept,
    find_sampler,
    numbers,
    with_grid,
    with_numbers,
)

GuidanceLike = None | float | str | AbstractGuidance | tuple[AbstractGuidance, ...]


_OPTIONS = ("steps", "guidance", "grid", "noise", "labels", "cond", "key")
# What people of other libraries type, and what it is here.
_MEANT = {
    "num_inference_steps": "give steps=50",
    "num_steps": "give steps=50",
    "guidance_scale": "give guidance=2.0, or a guidance that has a scale",
    "cfg_scale": "give guidance=2.0",
    "seed": "give key=jax.random.key(seed)",
    "rng": "give key=jax.random.key(seed)",
}


class Plan(eqx.Module):
    """All that is needed to draw, but count, condition and key.

    - `denoiser`: for inference, with guidance and limits.
    - `sampler`, `steps`.
    - `decode`: from what is denoised, (batch, *shape), to images.
    - `shape`: of what is denoised.
    """

    denoiser: AbstractDenoiser
    sampler: AbstractSampler
    decode: Any
    steps: int = eqx.field(static=True)
    shape: tuple[int, ...] = eqx.field(static=True)


class Clipped(eqx.Module):
    """A decoding of pixels: nothing but clipping to [−1, 1]."""

    def __call__(self, x: Batch) -> Float[Array, "batch *shape"]:
        """The images, clipped."""
        return x.clip(-1.0, 1.0)


def recommended_sampler(config: SamplerConfig) -> AbstractSampler:
    """The sampler that a configuration names, with its numbers."""
    return with_numbers(find_sampler(config.name), dict(config.numbers))


def chosen_guidance(
    given: GuidanceLike, config: ModelConfig, denoiser: AbstractDenoiser
) -> tuple[AbstractGuidance, ...]:
    """The guidance as values, the innermost first.

    A number is the model's own guidance at that scale: classifier-free, within
    `config.guidance_interval`. A name is looked up, and has that interval too.

    **Raises:** `ValueError` for an unknown name, or guidance by a condition for a model that has none.
    """
    interval = None if config.guidance_interval == (0.0, 1.0) else config.guidance_interval
    if given is None:
        several: tuple[AbstractGuidance, ...] = ()
    elif isinstance(given, int | float):
        several = (ClassifierFreeGuidance(float(given), interval=interval),)
    elif isinstance(given, str):
        found = find_guidance(given)
        has_interval = any(field.name == "interval" for field in dataclasses.fields(found))
        several = (dataclasses.replace(found, interval=interval) if has_interval else found,)
    else:
        several = given if isinstance(given, tuple) else (given,)
    for one in several:
        check_kind(
            one,
            AbstractGuidance,
            "guidance is a scale, a name, or one such as ClassifierFreeGuidance(2.0)",
        )
        by_condition = isinstance(one, AbstractTwoBranchGuidance) and not isinstance(
            one, Autoguidance
        )
        if by_condition and denoiser.null is None:
            raise ValueError(
                f"{type(one).__name__} needs a model with a condition, and this one is "
                "unconditional (its backbone has "
                "num_classes=None); leave guidance out, or guide it by a classifier or a weaker model"
            )
    return several


def make_plan(
    config: ModelConfig,
    denoiser: AbstractDenoiser,
    decode: Any,
    *,
    sampler: str | AbstractSampler | None,
    steps: int | None,
    guidance: GuidanceLike,
    grid: AbstractGrid | str | None,
    noise: AbstractNoise | None,
    chosen: dict[str, Any],
) -> Plan:
    """The plan of a model; see `AbstractDiffusionModel.plan`."""
    recommended = config.recommended
    if sampler is None:
        method = recommended_sampler(recommended)
        steps = recommended.steps if steps is None else steps
    else:
        named = isinstance(sampler, str)
        method = find_sampler(sampler) if named else sampler
        check_kind(
            method, AbstractSampler, "the sampler must be a name, or one such as DDIMSampler()"
        )
        if steps is None and named and sampler == recommended.name:
            steps = recommended.steps
    if grid is not None:
        method = with_grid(method, grid)
    if noise is not None:
        method = dataclasses.replace(method, noise=noise)
    several = chosen_guidance(guidance, config, denoiser)
    if config.clip_denoised and not any(isinstance(one, AbstractLimiter) for one in several):
        several = (*several, Clipping())
    method, several = _with_chosen(method, several, chosen)
    total = config.noise_schedule.num_timesteps
    steps = total if steps is None else steps
    if not isinstance(steps, int) or steps < 1:
        raise ValueError(f"steps must be a whole number, at least 1; got {steps}")
    method.grid.check(denoiser.schedule, steps)
    guided: AbstractDenoiser = eqx.nn.inference_mode(denoiser)
    if several:
        guided = Guided(guided, several)
    check_pair_kept(method, guided)
    return Plan(guided, method, decode, steps, config.sample_shape)


def _with_chosen(
    sampler: AbstractSampler, guidance: tuple[AbstractGuidance, ...], chosen: dict[str, Any]
) -> tuple[AbstractSampler, tuple[AbstractGuidance, ...]]:
    of_sampler, of_guidance = numbers(sampler), numbers(guidance)
    unknown = sorted(chosen.keys() - of_sampler.keys() - of_guidance.keys())
    if unknown:
        name, known = unknown[0], [*of_sampler, *of_guidance]
        near = difflib.get_close_matches(name, [*known, *_OPTIONS], 1)
        meant = _MEANT.get(name) or (f"the nearest is {near[0]!r}" if near else "")
        raise ValueError(
            f"there is no option {name!r} here{'; ' if meant else ''}{meant}. Besides "
            f"{', '.join(_OPTIONS)} there are the numbers of {type(sampler).__name__} and of the guidance: "
            f"{', '.join(known) or 'none'}"
        )
    return (
        with_numbers(sampler, {n: v for n, v in chosen.items() if n in of_sampler}),
        with_numbers(guidance, {n: v for n, v in chosen.items() if n not in of_sampler}),
    )
