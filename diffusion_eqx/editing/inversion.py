"""DDIM inversion: the noise from which deterministic DDIM returns a given image."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from diffusion_eqx._typing import Batch, Cond
from diffusion_eqx._values import as_arrays
from diffusion_eqx.denoiser import AbstractDenoiser
from diffusion_eqx.editing.fixed_point import fixed_point
from diffusion_eqx.editing.source import (
    Denoised,
    EditPlan,
    GuidanceLike,
    SamplerLike,
    Source,
    plan_of,
)
from diffusion_eqx.samplers import (
    AbstractGrid,
    DDIMSampler,
    LogSNRGrid,
    Walk,
    split_over_devices,
)
from diffusion_eqx.schedules import NoiseLevel

# Its last step begins at the least noise that a network has learnt, which makes it the easiest to invert.
_USUAL = DDIMSampler(grid=LogSNRGrid())


def ddim_invert(
    source: Source,
    images: ArrayLike,
    *,
    sampler: SamplerLike = None,
    steps: int | None = None,
    labels: Any = None,
    cond: Cond = None,
    guidance: GuidanceLike = None,
    iterations: int = 3,
    **numbers: Any,
) -> Batch:
    """The standard normal noise from which `sample_from` with the same sampler and steps returns `images`.

    It is the noisy example of `ddim_invert_to` at the grid's first level, divided by that level's sigma.
    The arguments are explained there. Returns (batch, *shape of what is denoised).

    **Raises:** `ValueError` as `ddim_invert_to`.
    """
    plan = invertible_plan(source, sampler, steps, guidance, numbers)
    given = plan.images(images)
    x = inverted(plan, given, 0, iterations, plan.fit_cond(len(given), labels, cond))
    return x / plan.level(0).sigma


def ddim_invert_to(
    source: Source,
    images: ArrayLike,
    begin: int,
    *,
    sampler: SamplerLike = None,
    steps: int | None = None,
    labels: Any = None,
    cond: Cond = None,
    guidance: GuidanceLike = None,
    iterations: int = 3,
    **numbers: Any,
) -> Batch:
    """Take the steps of DDIM backwards, from clean images up to the grid's level at index `begin`.

    A DDIM step is x_s = alpha_s·x0(x_t, t) + sigma_s·eps(x_t, t), from level t to the cleaner level s. Its
    inverse is the fixed point of either of

        x_t = (alpha_t/alpha_s)·x_s + (sigma_t − sigma_s·alpha_t/alpha_s)·eps(x_t, t)
        x_t = (sigma_t/sigma_s)·x_s + (alpha_t − alpha_s·sigma_t/sigma_s)·x0(x_t, t)

    The first contracts where there is more signal than noise, the second where there is less. One iteration
    of the first from x_t := x_s is the usual inversion (Song et al. 2021, section 4.3). It is wrong by the
    change of the prediction over one step. More iterations, sped up by Anderson's method, converge to the
    exact inverse (Pan et al. 2023). The step to the clean level is the hardest: a grid that begins it at
    little noise, such as `LogSNRGrid`, is inverted far more exactly than `TrailingGrid`.

    - `source`: a model, or a denoiser with `steps`.
    - `images`: (batch, height, width, channels) in [−1, 1].
    - `sampler`: a `DDIMSampler` with eta = 0. None is `DDIMSampler(grid=LogSNRGrid())`.
    - `steps`: of the whole grid; None is the number that the model recommends.
    - `labels`, `cond`, `guidance`, `numbers`: as in `model.sample`.
    - `iterations`: evaluations of the denoiser in each step.

    Returns noisy examples for `sample_between`, (batch, *shape of what is denoised).

    **Raises:** `ValueError` if the sampler is not a DDIM without noise, `iterations` < 1, unless
    0 <= begin < steps, or as `model.sample`.
    """
    plan = invertible_plan(source, sampler, steps, guidance, numbers)
    given = plan.images(images)
    return inverted(plan, given, begin, iterations, plan.fit_cond(len(given), labels, cond))


def invertible_plan(
    source: Source,
    sampler: SamplerLike,
    steps: int | None,
    guidance: GuidanceLike,
    numbers: dict[str, Any],
) -> EditPlan:
    """The plan of an edit whose steps can be taken backwards.

    **Raises:** `ValueError` if the sampler is not a DDIM without noise, or as `plan_of`.
    """
    if sampler is None:
        sampler = _USUAL
        if steps is None and not isinstance(source, AbstractDenoiser):
            # What the model recommends goes with its own sampler: only the number is taken.
            steps = plan_of(source, None, None, None, {}).steps
    plan = plan_of(source, sampler, steps, guidance, numbers)
    method = plan.sampler
    if not isinstance(method, DDIMSampler):
        raise ValueError(
            f"only steps of DDIMSampler can be taken backwards; got {type(method).__name__}"
        )
    if not method.deterministic:
        raise ValueError("only DDIM without noise can be inverted: the sampler needs eta=0.0")
    return plan


def inverted(plan: EditPlan, images: Batch, begin: int, iterations: int, cond: Cond) -> Denoised:
    """Checked images of an invertible plan as noisy examples of its grid's level at `begin`.

    `cond`: fitted to the images.

    **Raises:** `ValueError` if `iterations` < 1, or unless 0 <= begin < steps.
    """
    if iterations < 1:
        raise ValueError(f"iterations must be at least 1; got {iterations}")
    if not 0 <= begin < plan.steps:
        raise ValueError(f"begin must satisfy 0 <= begin < steps={plan.steps}; got {begin}")
    plan.sampler.grid.check(plan.denoiser.schedule, plan.steps)
    denoiser = as_arrays(eqx.nn.inference_mode(plan.denoiser))
    run = _Run(denoiser, as_arrays(plan.sampler.grid), plan.steps, begin, iterations)
    examples = _Examples(plan.encoded(images), cond)
    return split_over_devices(_backwards, run, examples)


class _Run(eqx.Module):
    """What all examples share. Python numbers here decide the program."""

    denoiser: AbstractDenoiser
    grid: AbstractGrid
    steps: int
    begin: int
    iterations: int


class _Examples(eqx.Module):
    """What each example has of its own."""

    x: Batch
    cond: Cond


def _backwards(run: _Run, examples: _Examples) -> Batch:
    walk = Walk.of(run.grid, run.denoiser.schedule, run.steps)

    def body(x_s: Batch, index) -> tuple[Batch, None]:
        return _step_back(run, walk[index], walk[index + 1], x_s, examples.cond), None

    indices = jnp.arange(run.steps - 1, run.begin - 1, -1, dtype=jnp.int32)
    return jax.lax.scan(body, examples.x, indices)[0]


def _step_back(run: _Run, t: NoiseLevel, s: NoiseLevel, x_s: Batch, cond: Cond) -> Batch:
    """From level s up to the noisier level t."""
    by_eps = t.alpha / s.alpha
    # Not used at the clean level, where it has no meaning.
    by_x0 = t.sigma / jnp.where(s.clean, 1.0, s.sigma)
    noisy = t.alpha < s.sigma

    def improve(x_t: Batch) -> Batch:
        x0, eps = run.denoiser(x_t, t, cond)
        return jnp.where(
            noisy,
            by_x0 * x_s + (t.alpha - s.alpha * by_x0) * x0,
            by_eps * x_s + (t.sigma - s.sigma * by_eps) * eps,
        )

    return fixed_point(improve, x_s, iterations=run.iterations)
