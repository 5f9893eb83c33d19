"""DPM-Solver++ (Lu et al. 2022): exponential integrators in lambda = log(alpha/sigma)."""

from typing import ClassVar, Literal

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array

from diffusion_eqx._typing import Batch, Real
from diffusion_eqx._values import number
from diffusion_eqx.samplers.base import AbstractSampler, Bound, unless_clean
from diffusion_eqx.samplers.grid import AbstractGrid, LogSNRGrid
from diffusion_eqx.samplers.multistep import History, by_order, falling_order, safe
from diffusion_eqx.samplers.state import State
from diffusion_eqx.samplers.temperature import temperature
from diffusion_eqx.schedules import NoiseLevel


class DPMSolverPlusPlusSampler(AbstractSampler):
    """Multistep DPM-Solver++ of order 1, 2 or 3: 2M and 3M; with `eta` 1, SDE-DPM-Solver++ 2M and 3M.

    With h = lambda_s − lambda_t and k = (1 + eta)·h (Lu et al. 2022, algorithm 2 and section 5; the
    third order and general eta as in k-diffusion), D_0 the newest x0 and D_1, D_2 its divided
    differences:

        x_s = (sigma_s/sigma_t)·e^(−eta·h)·x_t + alpha_s·(1 − e^(−k))·D_0
              + alpha_s·(phi2·D_1 − 2·phi3·D_2) + temperature·sigma_s·sqrt(1 − e^(−2·eta·h))·z
        phi2 = (e^(−k) − 1)/k + 1,   phi3 = phi2/k − 1/2

    where order 2 has (1 − e^(−k))/2 in place of phi2. D_2 is half the second derivative, hence the
    factor 2. The reference code and its descendants (diffusers, k-diffusion) lack it, which leaves
    their third order with the error of a second. A step that is more than twice as long as one before it
    would extrapolate from too short a base, and magnify its errors: the last step to a noisy level does so
    on grids that are even in timesteps. There D_1 is taken over half the step, and the order is 2 at most.

    - `eta`: 0 solves the probability-flow ODE, 1 the reverse SDE.
    - `temperature`: scale of the noise z.
    - `order`: 1, 2 or 3.
    - `published`: leave out the factor 2 and the limit of extrapolation, as those do.

    Cost: one evaluation a step. Order 2 is a sound choice from 10 steps, under strong guidance too;
    order 3 is more accurate without guidance.
    """

    eta: Real = number(
        0.0,
        neutral=0.0,
        minimum=0.0,
        maximum=1.0,
        about="share of fresh noise in each step; 0 is deterministic",
    )
    temperature: Real = temperature()
    order: Literal[1, 2, 3] = eqx.field(static=True, default=2)
    published: bool = eqx.field(static=True, default=False)
    grid: AbstractGrid = eqx.field(default=LogSNRGrid(), kw_only=True)

    remembers: ClassVar[bool] = True
    reference: ClassVar[str] = "Lu et al. 2022, algorithm 2; third order made exact"
    about: ClassVar[str] = "multistep exponential integrator, one evaluation a step"
    use: ClassVar[str] = "10 to 30 steps, under strong guidance too (order 2)"

    def init(self, denoise: Bound, x: Batch, t: NoiseLevel, s: NoiseLevel) -> History:
        """Room for `order` predictions of x0."""
        return History.empty(x, self.order)

    def step(self, denoise: Bound, state: State, t: NoiseLevel, s: NoiseLevel) -> State:
        """One step; the last one returns x0."""
        history = state.memory.push(denoise(state.x, t).x0, t.lam)
        newest, *older = history.predictions
        _, *earlier = history.lams
        h = s.lam - t.lam
        k = (1.0 + self.eta) * h
        decay = -jnp.expm1(-k)

        first = s.sigma / t.sigma * jnp.exp(-self.eta * h) * state.x + s.alpha * decay * newest
        results = [first]
        if self.order >= 2:
            shortest = -jnp.inf if self.published else 0.5 * h
            h0 = t.lam - earlier[0]
            base = safe(jnp.maximum(h0, shortest))
            slope = (newest - older[0]) / base
            results.append(first + 0.5 * s.alpha * decay * h * slope)
            if self.order == 3:
                h1 = earlier[0] - earlier[1]
                curvature = (slope - (older[0] - older[1]) / safe(h1)) / safe(h0 + h1)
                phi2 = 1.0 - decay / k
                # For short steps the difference would cancel in float32; there it is −k/6.
                phi3 = jnp.where(k < 1e-2, k / -6.0, phi2 / k - 0.5)
                factor = 1.0 if self.published else 2.0
                change = phi2 * h * (slope + h0 * curvature) - factor * phi3 * h**2 * curvature
                short = jnp.minimum(h0, h1) < shortest
                results.append(jnp.where(short, results[-1], first + s.alpha * change))
        x = by_order(falling_order(self.order, history.count, state, s), results)

        def noisy() -> Array:
            std = self.temperature * s.sigma * jnp.sqrt(-jnp.expm1(-2.0 * self.eta * h))
            return x + std * self.noise(state, t, s)

        return state.moved(denoise.unless_neutral(self.eta, 0.0, noisy, lambda: x), history)


class DPMSolverPlusPlus2SSampler(AbstractSampler):
    """Singlestep DPM-Solver++ of order 2 (Lu et al. 2022, algorithm 1).

    A second evaluation in the middle of each step, in lambda, takes the place of memory: x_s
    follows from the x0 predicted there. Cost: two evaluations a step, one in the last. For the same
    evaluations 2M is usually better; 2S stands changes of the denoiser between steps.
    """

    grid: AbstractGrid = eqx.field(default=LogSNRGrid(), kw_only=True)

    stochastic: ClassVar[bool] = False
    evaluations: ClassVar[int | None] = 2
    reference: ClassVar[str] = "Lu et al. 2022, algorithm 1"
    about: ClassVar[str] = "second order, no memory, two evaluations a step"
    use: ClassVar[str] = "where the denoiser changes between steps"

    def step(self, denoise: Bound, state: State, t: NoiseLevel, s: NoiseLevel) -> State:
        """One step; the last one returns x0."""
        x0, _ = denoise(state.x, t)

        def moved(to: NoiseLevel, x0: Batch) -> Batch:
            return to.sigma / t.sigma * state.x - to.alpha * jnp.expm1(t.lam - to.lam) * x0

        def by_middle(level: NoiseLevel) -> Array:
            middle = denoise.schedule.at_log_snr(t.lam + level.lam)
            return moved(s, denoise(moved(middle, x0), middle).x0)

        return state.moved(unless_clean(s, t, by_middle, moved(s, x0)))
