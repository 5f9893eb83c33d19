"""DPM-Solver++ (Lu et al. 2022): exponential integrators in lambda = log(alpha/sigma)."""

from typing import ClassVar, Literal

import equinox as eqx
import jax
import jax.numpy as jnp

from diffusion_eqx._typing import Batch, Cond, Real
from diffusion_eqx.denoiser import AbstractDenoiser
from diffusion_eqx.samplers.base import AbstractMethod, AbstractOneStepMethod, State
from diffusion_eqx.samplers.brownian import AbstractNoise, IndependentNoise
from diffusion_eqx.samplers.ddim import known_zero
from diffusion_eqx.samplers.grid import AbstractGrid, Index, LogSNRGrid
from diffusion_eqx.samplers.multistep import History, by_order, falling_order, lambdas, safe


class DPMSolverPlusPlus(AbstractMethod):
    """Multistep DPM-Solver++ of order 1, 2 or 3: 2M and 3M; with `eta` 1, SDE-DPM-Solver++ 2M and 3M.

    With h = lambda_s − lambda_t and k = (1 + eta)·h (Lu et al. 2022, algorithm 2 and section 5; the third
    order and general eta as in k-diffusion), D_0 the newest x0 and D_1, D_2 its divided differences:

        x_s = (sigma_s/sigma_t)·e^(−eta·h)·x_t + alpha_s·(1 − e^(−k))·D_0
              + alpha_s·(phi2·D_1 − 2·phi3·D_2) + temperature·sigma_s·sqrt(1 − e^(−2·eta·h))·z
        phi2 = (e^(−k) − 1)/k + 1,   phi3 = phi2/k − 1/2

    where order 2 has (1 − e^(−k))/2 in place of phi2. D_2 is half the second derivative, hence the factor
    2. The reference code and its descendants (diffusers, k-diffusion) lack it, which leaves their third
    order with the error of a second; `published=True` does as they do. Cost: one evaluation a step. Order 2
    is a sound choice from 10 steps, under strong guidance too; order 3 is more accurate without guidance.
    """

    denoiser: AbstractDenoiser
    grid: AbstractGrid = LogSNRGrid()
    eta: Real = 0.0
    temperature: Real = 1.0
    noise: AbstractNoise = IndependentNoise()
    order: Literal[1, 2, 3] = eqx.field(static=True, default=2)
    published: bool = eqx.field(static=True, default=False)

    renoises: ClassVar[bool] = False

    def memory(self, x_t: Batch, index: Index, steps: Index) -> History:
        """Room for `order` predictions of x0."""
        return History.empty(x_t, self.order)

    def step(self, state: State, index: Index, steps: Index, cond: Cond = None) -> State:
        """One step; the last one (s = 0) returns x0."""
        t, s = self.times(index, steps)
        schedule = self.denoiser.schedule
        history = state.memory.push(self.denoiser(state.x, t, cond).x0)
        alpha_s, sigma_s = schedule.alpha(s), schedule.sigma(s)
        lambda_s = schedule.half_log_snr(s)
        lambda_t, *earlier = lambdas(self.grid, schedule, index, steps, self.order - 1)
        h = lambda_s - lambda_t
        k = (1.0 + self.eta) * h
        decay = -jnp.expm1(-k)

        d0 = history.predictions[0]
        first = sigma_s / schedule.sigma(t) * jnp.exp(-self.eta * h) * state.x
        first += alpha_s * decay * d0
        results = [first]
        if self.order >= 2:
            h0 = safe(lambda_t - earlier[0])
            slope = (d0 - history.predictions[1]) / h0
            results.append(first + 0.5 * alpha_s * decay * h * slope)
            if self.order == 3:
                h1 = safe(earlier[0] - earlier[1])
                older = (history.predictions[1] - history.predictions[2]) / h1
                curvature = (slope - older) / safe(lambda_t - earlier[1])
                phi2 = 1.0 - decay / k
                # For short steps the difference would cancel in float32; there it is −k/6.
                phi3 = jnp.where(k < 1e-2, k / -6.0, phi2 / k - 0.5)
                factor = 1.0 if self.published else 2.0
                change = phi2 * h * (slope + h0 * curvature) - factor * phi3 * h**2 * curvature
                results.append(first + alpha_s * change)
        x = by_order(falling_order(self.order, history.length, index, steps, s), results)
        if not known_zero(self.eta):
            std = self.temperature * sigma_s * jnp.sqrt(-jnp.expm1(-2.0 * self.eta * h))
            x += std * self.noise(state.keys, index, (lambda_t, lambda_s), x.shape[1:])
        return State(x, state.keys, history)


class DPMSolverPlusPlus2S(AbstractOneStepMethod):
    """Singlestep DPM-Solver++ of order 2 (Lu et al. 2022, algorithm 1).

    A second evaluation in the middle of each step, in lambda, takes the place of memory: x_s follows from
    the x0 predicted there. Cost: two evaluations a step, one in the last. For the same evaluations 2M is
    usually better; 2S stands changes of the denoiser between steps.
    """

    denoiser: AbstractDenoiser
    grid: AbstractGrid = LogSNRGrid()

    renoises: ClassVar[bool] = False

    def step(self, state: State, index: Index, steps: Index, cond: Cond = None) -> State:
        """One step; the last one (s = 0) returns x0."""
        t, s = self.times(index, steps)
        schedule = self.denoiser.schedule
        x0 = self.denoiser(state.x, t, cond).x0
        lambda_t, lambda_s = schedule.half_log_snr(t), schedule.half_log_snr(s)

        def move(to, lambda_to, x0: Batch) -> Batch:
            decay = -jnp.expm1(lambda_t - lambda_to)
            kept = schedule.sigma(to) / schedule.sigma(t) * state.x
            return kept + schedule.alpha(to) * decay * x0

        def correct() -> jax.Array:
            middle = 0.5 * (lambda_t + lambda_s)
            m = schedule.time_of(middle)
            return move(s, lambda_s, self.denoiser(move(m, middle, x0), m, cond).x0)

        return State(jax.lax.cond(s > 0.0, correct, lambda: move(s, lambda_s, x0)), state.keys)
