"""Guidance by two branches of one network.

Extrapolate from the unconditional to the conditional prediction.
"""

from collections.abc import Callable
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from diffusion_eqx._typing import Batch, Cond, PerExample, Real
from diffusion_eqx._values import is_known, number
from diffusion_eqx.denoiser import AbstractDenoiser, Prediction, null_like, plain
from diffusion_eqx.guidance.base import AbstractTwoBranchGuidance, names_taken, take
from diffusion_eqx.schedules import NoiseLevel, over, safe_sqrt

# A number, or a function of the level that gives one.
Scale = Real | Callable[[NoiseLevel], PerExample]
# A pair of times, or None for all.
Interval = tuple[Real, Real] | None

# A deviation below which an image counts as blank: a hundredth of a grey level of 256 in [−1, 1].
_BLANK = 1e-4


class ClassifierFreeGuidance(AbstractTwoBranchGuidance):
    """uncond + w·(cond − uncond) (Ho & Salimans 2022, eq. 6, whose w is this one less 1).

    w = 1 is the conditional prediction, w = 0 the unconditional one. Both branches run in one call
    of twice the batch. The unconditional branch sees the denoiser's `null` condition.

    - `guidance_scale`: w; a number, or a function of the level (Wang et al. 2024).
    - `rescale`: from 0 to 1, how far the standard deviation of the guided x0 is pulled back to that of the
      conditional one, against overexposure (Lin et al. 2024, eqs. 14-16).
    - `interval`: a pair of times. Outside, the prediction is the conditional one, for half the
      cost: guidance at the noisiest times makes samples alike, and at the cleanest it does nothing
      (Kynkäänniemi et al. 2024). None is the whole interval.
    """

    guidance_scale: Any = number(
        2.0,
        neutral=1.0,
        minimum=0.0,
        maximum=100.0,
        about="strength of guidance; 1 is the plain conditional prediction",
    )
    rescale: Any = number(
        0.0,
        neutral=0.0,
        minimum=0.0,
        maximum=1.0,
        about="how far guided contrast is pulled back to the conditional one",
    )
    interval: Interval = None

    def __call__(
        self, denoiser: AbstractDenoiser, x: Batch, level: NoiseLevel, cond: Cond
    ) -> Prediction:
        """The guided prediction.

        **Raises:** `ValueError` if there is no condition, or the denoiser has no null condition.
        """

        def guided(inside: Array) -> Prediction:
            with_cond, without = both_branches(denoiser, x, level, cond)
            # Written around the conditional branch, so that w = 1 gives it.
            extra = over(extra_scale(self.guidance_scale, level, inside), x)
            x0 = with_cond.x0 + extra * (with_cond.x0 - without.x0)
            if not is_known(self.rescale, 0.0):
                x0 = _rescaled(x0, with_cond.x0, over(self.rescale, x))
            return with_cond.with_x0(x, level, x0)

        return within(self.interval, level, guided, lambda: denoiser(x, level, cond))


class CFGPlusPlusGuidance(AbstractTwoBranchGuidance):
    """CFG++: the guided x0, but noise put back by the unconditional eps (Chung et al. 2025, algorithm 2).

    x0 = x0_uncond + lambda·(x0_cond − x0_uncond) and eps = eps_uncond, so that each step stays near
    the noisy data. Made for DDIM and Euler, which put noise back with eps; other samplers refuse
    it.

    - `guidance_scale`: lambda, from 0 to 1.
    """

    guidance_scale: Any = number(
        0.6, minimum=0.0, maximum=1.0, about="strength of guidance, lambda of CFG++"
    )

    # x0 and eps are of different predictions.
    keeps_pair: ClassVar[bool] = False

    def __call__(
        self, denoiser: AbstractDenoiser, x: Batch, level: NoiseLevel, cond: Cond
    ) -> Prediction:
        """The guided x0 with the unconditional eps.

        **Raises:** `ValueError` if there is no condition, or the denoiser has no null condition.
        """
        with_cond, without = both_branches(denoiser, x, level, cond)
        scale = over(scale_at(self.guidance_scale, level), x)
        x0 = without.x0 + scale * (with_cond.x0 - without.x0)
        return Prediction(x0, without.eps, with_cond.variance_fraction)


class AdaptiveProjectedGuidance(AbstractTwoBranchGuidance):
    """APG: classifier-free guidance without the part that only saturates (Sadat et al. 2025, algorithm 1).

    The difference d = x0_cond − x0_uncond is shortened to at most `norm_threshold`. Its part
    parallel to x0_cond is weighed by `parallel`:

        x0 = x0_cond + (w − 1)·(d_orthogonal + parallel·d_parallel)

    w = 1 is the conditional prediction; `parallel=1` and a threshold above every difference are
    `ClassifierFreeGuidance`. The paper's momentum is left out: it needs a memory, which guidance has not.

    - `guidance_scale`, `interval`: as in `ClassifierFreeGuidance`.
    - `norm_threshold`: the greatest length of d over a whole example.
    - `parallel`: what is kept of the parallel part.
    """

    guidance_scale: Any = number(
        2.0,
        neutral=1.0,
        minimum=0.0,
        maximum=100.0,
        about="strength of guidance; 1 is the plain conditional prediction",
    )
    norm_threshold: Real = number(
        15.0, minimum=0.0, maximum=1e6, about="greatest length of the guiding difference"
    )
    parallel: Real = number(
        0.0, minimum=0.0, maximum=1.0, about="what is kept of the part that saturates"
    )
    interval: Interval = None

    def __call__(
        self, denoiser: AbstractDenoiser, x: Batch, level: NoiseLevel, cond: Cond
    ) -> Prediction:
        """The guided prediction.

        **Raises:** `ValueError` if there is no condition, or the denoiser has no null condition.
        """

        def guided(inside: Array) -> Prediction:
            with_cond, without = both_branches(denoiser, x, level, cond)
            difference = with_cond.x0 - without.x0
            length = jnp.sqrt(_dot(difference, difference))
            threshold, kept = over(self.norm_threshold, x), over(self.parallel, x)
            difference *= jnp.minimum(1.0, threshold / jnp.maximum(length, 1e-12))
            size = jnp.maximum(_dot(with_cond.x0, with_cond.x0), 1e-12)
            parallel = _dot(difference, with_cond.x0) / size * with_cond.x0
            update = difference - parallel + kept * parallel
            extra = over(extra_scale(self.guidance_scale, level, inside), x)
            return with_cond.with_x0(x, level, with_cond.x0 + extra * update)

        return within(self.interval, level, guided, lambda: denoiser(x, level, cond))


def both_branches(
    denoiser: AbstractDenoiser, x: Batch, level: NoiseLevel, cond: Cond
) -> tuple[Prediction, Prediction]:
    """The conditional and the unconditional prediction, from one call of twice the batch.

    **Raises:** `ValueError` if there is no condition, or the denoiser has no null condition.
    """
    names = names_taken(denoiser)
    own, rest = take(cond, names)
    rest = plain(rest)
    if rest is None:
        raise ValueError(
            "classifier-free guidance needs a condition, such as labels, and there is none; "
            "give one, or leave "
            "guidance out"
        )
    if denoiser.null is None:
        raise ValueError(
            "classifier-free guidance needs the condition that stands for none; give it as "
            "Denoiser(..., null=...)"
        )
    both = _joined(rest, null_like(rest, denoiser.null))
    if own:
        parts = both if isinstance(both, dict) else {"label": both}
        both = {**_joined(own, own), **parts}
    both_level = level if level.time.ndim == 0 else _joined(level, level)
    predicted = denoiser(jnp.concatenate([x, x]), both_level, both)
    count = len(x)
    return (
        jax.tree.map(lambda a: a[:count], predicted),
        jax.tree.map(lambda a: a[count:], predicted),
    )


def within(
    interval: Interval,
    level: NoiseLevel,
    act: Callable[[Array], Prediction],
    rest: Callable[[], Prediction],
) -> Prediction:
    """`act(inside)` if some example's time lies in the interval, else `rest()`, by one branch.

    `inside`, of the level's shape, tells `act` which examples those are. Without an interval there
    is no branch.
    """
    if interval is None:
        return act(jnp.ones_like(level.time, bool))
    inside = (level.time >= interval[0]) & (level.time <= interval[1])
    return jax.lax.cond(jnp.any(inside), lambda: act(inside), rest)


def scale_at(scale: Any, level: NoiseLevel) -> Float[Array, "..."]:
    """The scale at a level: a function's value there, or the number itself."""
    value = scale(level) if callable(scale) else scale
    return jnp.asarray(value, level.time.dtype)


def extra_scale(scale: Any, level: NoiseLevel, inside: Array) -> Float[Array, "..."]:
    """w − 1 for the examples inside of the interval, 0 for the others."""
    extra = scale_at(scale, level) - 1.0
    if inside.ndim and extra.ndim > inside.ndim:
        inside = inside.reshape(inside.shape + (1,) * (extra.ndim - 1))
    return jnp.where(inside, extra, 0.0)


def _joined(first: Any, second: Any) -> Any:
    return jax.tree.map(lambda a, b: jnp.concatenate([a, b]), first, second)


def _rescaled(guided: Batch, conditional: Batch, amount: Real) -> Batch:
    axes = tuple(range(1, guided.ndim))
    # Where an image is blank the square root has no slope.
    wanted, found = (safe_sqrt(jnp.var(x, axis=axes, keepdims=True)) for x in (conditional, guided))
    # A blank image has no contrast to restore, and one that is guided to be blank cannot get it back.
    some = found > _BLANK
    factor = jnp.where(some, wanted / jnp.where(some, found, 1.0), 1.0)
    return guided * (amount * factor + (1.0 - amount))


def _dot(a: Batch, b: Batch) -> Float[Array, "..."]:
    return jnp.sum(a * b, axis=tuple(range(1, a.ndim)), keepdims=True)
