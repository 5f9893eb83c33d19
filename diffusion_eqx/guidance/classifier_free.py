"""Classifier-free guidance: extrapolate from the unconditional to the conditional prediction."""

from collections.abc import Callable
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from diffusion_eqx._typing import Batch, Cond, PRNGKey, Real, Time
from diffusion_eqx.denoiser import AbstractDenoiser, Prediction
from diffusion_eqx.guidance.base import AbstractTwoBranchGuidance
from diffusion_eqx.schedules import like

# A number, or a function of time that gives one.
Scale = Real | Callable[[Time], Time]


class ClassifierFreeGuidance(AbstractTwoBranchGuidance):
    """uncond + w·(cond − uncond) (Ho & Salimans 2022, eq. 6, with w here being their 1 + w).

    `w = 1` is exactly the conditional prediction, `w = 0` the unconditional one. Both branches run in
    one call of twice the batch. `unconditional_conditioning` is the null token: a PyTree like the
    `cond` of a single example, e.g. the integer `num_classes`.

    `guidance_scale` may be a function of time (Wang et al. 2024). Outside `interval`, a pair of times,
    the scale is 1: guidance at the noisiest times makes samples alike, and at the cleanest it does nothing
    (Kynkäänniemi et al. 2024). `rescale`, from 0 to 1, pulls the standard deviation of the guided x0 back
    to that of the conditional one, against overexposure (Lin et al. 2024, eqs. 14-16).
    """

    denoiser: AbstractDenoiser
    guidance_scale: Scale
    unconditional_conditioning: Cond
    interval: tuple[float, float] = (0.0, 1.0)
    rescale: float = eqx.field(static=True, default=0.0)

    keeps_pair: ClassVar[bool] = True

    def __call__(
        self, x_t: Batch, t: Time, cond: Cond = None, *, key: PRNGKey | None = None
    ) -> Prediction:
        """The guided prediction. `cond` is required.

        **Raises:** `ValueError` if `cond` is None.
        """
        with_cond, without = both_branches(
            self.denoiser, x_t, t, cond, self.unconditional_conditioning, key=key
        )
        # Written around the conditional branch, so that w = 1 gives it bit for bit.
        extra = like(extra_scale(self.guidance_scale, self.interval, t), x_t)
        x0 = with_cond.x0 + extra * (with_cond.x0 - without.x0)
        if self.rescale > 0.0:
            x0 = _rescaled(x0, with_cond.x0, self.rescale)
        return Prediction.from_x0(self.schedule, x_t, t, x0, with_cond.variance_fraction)


class CFGPlusPlus(AbstractTwoBranchGuidance):
    """CFG++: the guided x0, but noise put back by the unconditional eps (Chung et al. 2025, algorithm 2).

    x0 = x0_uncond + lambda·(x0_cond − x0_uncond), lambda in [0, 1], and eps = eps_uncond, so that each step
    stays near the noisy data manifold. Made for DDIM (and Euler), which renoises with eps; other samplers
    refuse it. `guidance_scale` is lambda; arguments otherwise as in `ClassifierFreeGuidance`.
    """

    denoiser: AbstractDenoiser
    guidance_scale: Scale
    unconditional_conditioning: Cond

    # x0 and eps are of different predictions.
    keeps_pair: ClassVar[bool] = False

    def __call__(
        self, x_t: Batch, t: Time, cond: Cond = None, *, key: PRNGKey | None = None
    ) -> Prediction:
        """The guided x0 with the unconditional eps. `cond` is required.

        **Raises:** `ValueError` if `cond` is None.
        """
        with_cond, without = both_branches(
            self.denoiser, x_t, t, cond, self.unconditional_conditioning, key=key
        )
        scale = like(scale_at(self.guidance_scale, t), x_t)
        x0 = without.x0 + scale * (with_cond.x0 - without.x0)
        return Prediction(x0, without.eps, with_cond.variance_fraction)


def both_branches(
    denoiser: AbstractDenoiser,
    x_t: Batch,
    t: Time,
    cond: Cond,
    null_cond: Cond,
    *,
    key: PRNGKey | None,
) -> tuple[Prediction, Prediction]:
    """The conditional and the unconditional prediction, from one call of twice the batch.

    **Raises:** `ValueError` if `cond` is None.
    """
    if cond is None:
        raise ValueError(
            "classifier-free guidance needs a conditioning (e.g. class labels), but cond is "
            "None; pass cond, or sample from the unguided denoiser"
        )
    null = jax.tree.map(
        lambda c, n: jnp.broadcast_to(jnp.asarray(n, c.dtype), c.shape), cond, null_cond
    )
    both = jax.tree.map(lambda c, n: jnp.concatenate([c, n]), cond, null)
    both_t = t if t.ndim == 0 else jnp.concatenate([t, t])
    predicted = denoiser(jnp.concatenate([x_t, x_t]), both_t, both, key=key)
    count = len(x_t)
    return (
        jax.tree.map(lambda a: a[:count], predicted),
        jax.tree.map(lambda a: a[count:], predicted),
    )


def scale_at(guidance_scale: Scale, t: Time) -> Float[Array, "*s"]:
    """The scale at time t, of the shape of t."""
    value = guidance_scale(t) if callable(guidance_scale) else guidance_scale
    return jnp.broadcast_to(jnp.asarray(value, t.dtype), t.shape)


def extra_scale(
    guidance_scale: Scale, interval: tuple[float, float], t: Time
) -> Float[Array, "*s"]:
    """w − 1 within the interval of times, 0 outside."""
    inside = (t >= interval[0]) & (t <= interval[1])
    return jnp.where(inside, scale_at(guidance_scale, t) - 1.0, 0.0)


def _rescaled(guided: Batch, conditional: Batch, amount: float) -> Batch:
    axes = tuple(range(1, guided.ndim))

    def deviation(x: Batch) -> Float[Array, "..."]:
        return jnp.std(x, axis=axes, keepdims=True)

    # A constant prediction has no deviation to restore.
    factor = deviation(conditional) / jnp.maximum(deviation(guided), 1e-6)
    return guided * (amount * factor + (1.0 - amount))
