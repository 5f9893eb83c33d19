"""The probability-flow ODE and the reverse SDE as diffrax sees them, in variables that stay finite.

Every Gaussian path is a straight one once it is scaled: with u = alpha/(alpha + sigma),

    y = x/(alpha + sigma) = u·x0 + (1 − u)·eps,   dy/du = x0 − eps                (flow)

for any schedule, from noise (u near 0) to data (u = 1) without a pole at either end. The reverse SDE whose
marginals are those of the forward one is written in lambda = log(alpha/sigma) and w = x/sqrt(alpha² +
sigma²), with a² + b² = 1, a/b = alpha/sigma:

    dw = (b²·w − 2·b·eps) dlambda + sqrt(2)·b dW                                    (reverse SDE)

(Song et al. 2021, eq. 6, after these substitutions).
"""

import math
from collections.abc import Callable
from typing import Any

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
from jaxtyping import Array, Float

from diffusion_eqx._typing import Batch, Real
from diffusion_eqx.samplers.base import Bound
from diffusion_eqx.schedules import AbstractSchedule, NoiseLevel, safe_sqrt

Number = Float[Array, "..."]

# alpha/sigma = 3e-4.
_PURE_NOISE = -8.0


def flow_place(level: NoiseLevel) -> Number:
    """u = alpha/(alpha + sigma), the flow's clock."""
    return level.alpha / (level.alpha + level.sigma)


def flow_scale(level: NoiseLevel) -> Number:
    """x/y of the flow's variable."""
    return level.alpha + level.sigma


def flow_level(schedule: AbstractSchedule, u: Number) -> NoiseLevel:
    """The level at which the flow's clock shows u."""
    # A stage may lie a rounding outside [0, 1].
    odds = jnp.log(jnp.maximum(u, 1e-12)) - jnp.log(jnp.maximum(1.0 - u, 1e-12))
    return schedule.at_log_snr(2.0 * odds)


def flow_term(denoise: Bound) -> diffrax.ODETerm:
    """dy/du = x0 − eps for a batch."""

    def field(u: Any, y: Batch, args: Any) -> Batch:
        level = flow_level(denoise.schedule, jnp.asarray(u))
        x0, eps = denoise(flow_scale(level) * y, level)
        return x0 - eps

    return diffrax.ODETerm(field)


def reverse_place(level: NoiseLevel) -> Number:
    """lambda, the reverse SDE's clock, from −8 on: what is noisier is as good as pure noise."""
    return jnp.maximum(level.lam, _PURE_NOISE)


def reverse_scale(level: NoiseLevel) -> Number:
    """x/w of the reverse SDE's variable."""
    return jnp.sqrt(level.alpha**2 + level.sigma**2)


def reverse_terms(
    denoise: Bound, path: diffrax.AbstractPath, temperature: Real
) -> diffrax.MultiTerm:
    """dw = (b²·w − 2·b·eps) dlambda + temperature·sqrt(2)·b dW for a batch."""

    def drift(place: Any, w: Batch, args: Any) -> Batch:
        level = denoise.schedule.at_log_snr(2.0 * jnp.asarray(place))
        _, eps = denoise(reverse_scale(level) * w, level)
        share = _noise_share(place)
        return share**2 * w - 2.0 * share * eps

    def diffusion(place: Any, w: Batch, args: Any) -> lx.AbstractLinearOperator:
        strength = temperature * math.sqrt(2.0) * _noise_share(place)
        return lx.DiagonalLinearOperator(jnp.broadcast_to(strength, w.shape).astype(w.dtype))

    return diffrax.MultiTerm(diffrax.ODETerm(drift), diffrax.ControlTerm(diffusion, path))


def _noise_share(place: Any) -> Number:
    """b = sigma/sqrt(alpha² + sigma²) at a lambda."""
    return safe_sqrt(jax.nn.sigmoid(-2.0 * jnp.asarray(place)))


def silent_terms(x: Batch, *, stochastic: bool) -> diffrax.AbstractTerm:
    """Terms that are zero: for where a solver asks an equation for nothing but shapes."""

    def zero(place: Any, y: Batch, args: Any) -> Batch:
        return jnp.zeros_like(y)

    drift = diffrax.ODETerm(zero)
    if not stochastic:
        return drift

    def nothing(begin: Any, end: Any) -> Batch:
        return jnp.zeros_like(x)

    def still(place: Any, y: Batch, args: Any) -> lx.AbstractLinearOperator:
        return lx.DiagonalLinearOperator(jnp.zeros_like(y))

    path = StepPath(increment=nothing, area=nothing)
    return diffrax.MultiTerm(drift, diffrax.ControlTerm(still, path))


class StepPath(diffrax.AbstractBrownianPath):
    """Brownian motion as a solver asks for it: by increments between two places.

    `increment(begin, end)` gives W(end) − W(begin); `area(begin, end)`, for solvers that need it, the
    space-time Lévy area over that interval, N(0, (end − begin)/12) and independent of the increment.
    """

    increment: Callable[[Any, Any], Batch]
    area: Callable[[Any, Any], Batch] | None
    levy_area: Any = eqx.field(static=True, default=diffrax.SpaceTimeLevyArea)
    t0: Any = eqx.field(static=True, default=None)
    t1: Any = eqx.field(static=True, default=None)

    def evaluate(self, t0, t1=None, left: bool = True, use_levy: bool = False):
        """W(t1) − W(t0), with the area if `use_levy`. Only increments are known: `t1` must be given.

        **Raises:** `ValueError` if the solver needs a Lévy area and there is none.
        """
        if t1 is None:
            raise ValueError("this Brownian motion is known by its increments only; give t1")
        increment = self.increment(t0, t1)
        if not use_levy:
            return increment
        if self.area is None:
            raise ValueError(
                "this solver needs a Lévy area, which one Brownian path for all step counts does not "
                "give; choose Euler or Heun, or a fixed number of steps with independent noise"
            )
        return diffrax.SpaceTimeLevyArea(dt=t1 - t0, W=increment, H=self.area(t0, t1))
