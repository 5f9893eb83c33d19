"""The probability-flow ODE and the reverse SDE as diffrax sees them, in variables that stay finite.

Every Gaussian path is a straight one once it is scaled: with u = alpha/(alpha + sigma),

    y = x_t/(alpha + sigma) = u·x0 + (1 − u)·eps,   dy/du = x0 − eps                (flow)

for any schedule, from noise (u near 0) to data (u = 1) without a pole at either end. The reverse SDE whose
marginals are those of the forward one is written in lambda = log(alpha/sigma) and w = x_t/sqrt(alpha² +
sigma²), with a² + b² = 1, a/b = alpha/sigma:

    dw = (b²·w − 2·b·eps) dlambda + sqrt(2)·b dW                                    (reverse SDE)

(Song et al. 2021, eq. 6, after these substitutions).
"""

from collections.abc import Callable
from typing import Any

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
from jaxtyping import Array, Float

from diffusion_eqx._typing import Batch, Cond, Real
from diffusion_eqx.denoiser import AbstractDenoiser, AbstractExactDenoiser, Prediction
from diffusion_eqx.schedules import AbstractSchedule

Number = Float[Array, ""]

# alpha/sigma = 3e-4.
_PURE_NOISE = -8.0


def flow_place(schedule: AbstractSchedule, t: Number) -> Number:
    """u = alpha/(alpha + sigma), the flow's clock."""
    alpha = schedule.alpha(t)
    return alpha / (alpha + schedule.sigma(t))


def flow_scale(schedule: AbstractSchedule, t: Number) -> Number:
    """x_t/y of the flow's variable."""
    return schedule.alpha(t) + schedule.sigma(t)


def flow_time(schedule: AbstractSchedule, u: Number) -> Number:
    """The time at which the flow's clock shows u."""
    # A stage may lie a rounding outside [0, 1].
    odds = jnp.log(jnp.maximum(u, 1e-12)) - jnp.log(jnp.maximum(1.0 - u, 1e-12))
    return schedule.time_of(odds)


def flow_term(denoiser: AbstractDenoiser, cond: Cond) -> diffrax.ODETerm:
    """dy/du = x0 − eps for a batch."""

    def field(u: Any, y: Batch, args: Any) -> Batch:
        t = flow_time(denoiser.schedule, jnp.asarray(u))
        predicted = denoiser(flow_scale(denoiser.schedule, t) * y, t, cond)
        return predicted.x0 - predicted.eps

    return diffrax.ODETerm(field)


def reverse_place(schedule: AbstractSchedule, t: Number) -> Number:
    """lambda, the reverse SDE's clock, from −8 on: what is noisier is as good as pure noise."""
    return jnp.maximum(schedule.half_log_snr(t), _PURE_NOISE)


def reverse_scale(schedule: AbstractSchedule, t: Number) -> Number:
    """x_t/w of the reverse SDE's variable."""
    return jnp.sqrt(schedule.alpha(t) ** 2 + schedule.sigma(t) ** 2)


def reverse_terms(
    denoiser: AbstractDenoiser, cond: Cond, path: diffrax.AbstractPath, temperature: Real
) -> diffrax.MultiTerm:
    """dw = (b²·w − 2·b·eps) dlambda + temperature·sqrt(2)·b dW for a batch."""
    schedule = denoiser.schedule

    def drift(place: Any, w: Batch, args: Any) -> Batch:
        t = schedule.time_of(jnp.asarray(place))
        eps = denoiser(reverse_scale(schedule, t) * w, t, cond).eps
        return _noise_share(place) ** 2 * w - 2.0 * _noise_share(place) * eps

    def diffusion(place: Any, w: Batch, args: Any) -> lx.AbstractLinearOperator:
        strength = temperature * jnp.sqrt(2.0) * _noise_share(place)
        return lx.DiagonalLinearOperator(jnp.broadcast_to(strength, w.shape).astype(w.dtype))

    return diffrax.MultiTerm(diffrax.ODETerm(drift), diffrax.ControlTerm(diffusion, path))


def _noise_share(place: Any) -> Number:
    """b = sigma/sqrt(alpha² + sigma²) at a lambda."""
    return jnp.sqrt(jax.nn.sigmoid(-2.0 * jnp.asarray(place)))


class Silent(AbstractExactDenoiser):
    """Predicts zeros: for where a solver asks an equation for nothing but shapes."""

    schedule: AbstractSchedule

    def __call__(self, x_t, t, cond=None, *, key=None) -> Prediction:
        """Zeros of the shape of `x_t`."""
        return Prediction(jnp.zeros_like(x_t), jnp.zeros_like(x_t))


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
        """See diffrax. Only increments are known: `t1` must be given.

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
