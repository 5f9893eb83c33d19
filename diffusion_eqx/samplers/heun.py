"""Heun's method in sigma/alpha, deterministic or with churn (Karras et al. 2022)."""

import math
from typing import ClassVar

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array

from diffusion_eqx._typing import Batch, Real
from diffusion_eqx._values import number, real
from diffusion_eqx.samplers.base import AbstractSampler, Bound, unless_clean
from diffusion_eqx.samplers.grid import AbstractGrid, KarrasGrid
from diffusion_eqx.samplers.state import State
from diffusion_eqx.samplers.temperature import temperature
from diffusion_eqx.schedules import NoiseLevel

# Karras et al. (2022, algorithm 2): more noise than this in one step is not to be removed in one.
_MOST_RAISED = math.sqrt(2.0) - 1.0


class HeunSampler(AbstractSampler):
    """Second order by the mean of the slopes at both ends of a step (Karras et al. 2022, algorithm 2).

    With y = x/alpha and s = sigma/alpha the probability-flow ODE is dy/ds = eps:

        y_euler = y + (s' − s)·eps(y, s),   y' = y + (s' − s)·(eps(y, s) + eps(y_euler, s'))/2

    The last step, to s' = 0, is Euler's.

    - `churn`: S_churn. Above 0, noise is added before each step whose s lies in [`churn_min`,
      `churn_max`], raising it to s·(1 + min(churn/steps, sqrt(2) − 1)).
    - `temperature`: S_noise, scale of that noise.

    Cost: two evaluations a step, one in the last. Accurate from about 20 evaluations.
    """

    churn: Real = number(
        0.0,
        neutral=0.0,
        minimum=0.0,
        maximum=1000.0,
        about="noise added before each step, over all steps",
    )
    temperature: Real = temperature()
    churn_min: Real = real(0.0)
    churn_max: Real = real(math.inf)
    grid: AbstractGrid = eqx.field(default=KarrasGrid(), kw_only=True)

    evaluations: ClassVar[int | None] = 2
    reference: ClassVar[str] = "Karras et al. 2022, algorithms 1 and 2"
    about: ClassVar[str] = "second order, two evaluations a step; with churn, stochastic"
    use: ClassVar[str] = "from 10 steps; robust"

    def step(self, denoise: Bound, state: State, t: NoiseLevel, s: NoiseLevel) -> State:
        """One step; the last one returns x0."""
        x, t = denoise.unless_neutral(
            self.churn, 0.0, lambda: self._churned(denoise, state, t, s), lambda: (state.x, t)
        )
        x0, eps = denoise(x, t)
        euler = s.noised(x0, eps)

        # (s' − s)·alpha_s; a start without signal is infinitely far away, and keeps to Euler's step.
        some = t.alpha > 0.0
        stride = s.sigma - s.alpha * t.sigma / jnp.where(some, t.alpha, 1.0)
        stride = jnp.where(some, stride, 0.0)

        def corrected(level: NoiseLevel) -> Array:
            return euler + 0.5 * stride * (denoise(euler, level).eps - eps)

        return state.moved(unless_clean(s, t, corrected, euler))

    def _churned(
        self, denoise: Bound, state: State, t: NoiseLevel, s: NoiseLevel
    ) -> tuple[Batch, NoiseLevel]:
        """The examples with noise added, and the level that they are then at."""
        # log(sigma/alpha), so that a start without signal is the greatest noise and not a division by 0.
        ratio = jnp.exp(-t.lam)
        steps = state.column(state.steps).astype(t.time.dtype)
        gamma = jnp.minimum(self.churn / steps, _MOST_RAISED)
        gamma = jnp.where((ratio >= self.churn_min) & (ratio <= self.churn_max), gamma, 0.0)
        raised = denoise.schedule.at_log_snr(2.0 * (t.lam - jnp.log1p(gamma)))
        # Noise is only added, and never beyond t = 1.
        higher = (gamma > 0.0) & (raised.time > t.time)
        noise = self.temperature * self.noise(state, t, s)
        x = jnp.where(higher, raised.raised(state.x, t, noise), state.x)
        return x, raised.where(higher, t)
