"""Adams-Bashforth methods for the probability-flow ODE dy/ds = eps, y = x/alpha, s = sigma/alpha."""

from typing import ClassVar, Literal

import equinox as eqx
import jax.numpy as jnp

from diffusion_eqx._typing import Batch, Cond
from diffusion_eqx.denoiser import AbstractDenoiser, Prediction
from diffusion_eqx.samplers.base import AbstractMethod, State
from diffusion_eqx.samplers.grid import AbstractGrid, Index, KarrasGrid, LogSNRGrid
from diffusion_eqx.samplers.multistep import (
    History,
    Number,
    by_order,
    falling_order,
    lambdas,
    weights_for_moments,
)
from diffusion_eqx.schedules import AbstractSchedule


class DEISSampler(AbstractMethod):
    """DEIS in log s (Zhang & Chen 2023, section 3.2: rho-AB): eps is extrapolated as a polynomial in log s.

    y' = y + ∫ sum_k eps_k·l_k(log s) ds, l_k being Lagrange's basis at the newest `order` points. Cost: one
    evaluation a step. Good from 5 steps.
    """

    denoiser: AbstractDenoiser
    grid: AbstractGrid = LogSNRGrid()
    order: Literal[1, 2, 3] = eqx.field(static=True, default=3)

    renoises: ClassVar[bool] = False

    def memory(self, x_t: Batch, index: Index, steps: Index) -> History:
        """Room for `order` predictions of eps."""
        return History.empty(x_t, self.order)

    def step(self, state: State, index: Index, steps: Index, cond: Cond = None) -> State:
        """One step; the last one (s = 0) returns x0."""
        t, s = self.times(index, steps)
        schedule = self.denoiser.schedule
        predicted = self.denoiser(state.x, t, cond)
        history = state.memory.push(predicted.eps)
        lambda_t, *earlier = lambdas(self.grid, schedule, index, steps, self.order - 1)
        nodes = [lambda_t - node for node in (lambda_t, *earlier)]
        end = lambda_t - schedule.half_log_snr(s)
        # ∫ u^i e^u du from 0 to `end`, by parts.
        moments = [jnp.expm1(end)]
        for i in range(1, self.order):
            moments.append(end**i * jnp.exp(end) - i * moments[-1])
        results = _results(schedule, predicted, s, history, nodes, moments, jnp.exp(-lambda_t))
        order = falling_order(self.order, history.length, index, steps, s)
        return State(by_order(order, results), state.keys, history)


class LMSSampler(AbstractMethod):
    """Linear multistep (k-diffusion's `lms`): eps is extrapolated as a polynomial in s itself.

    y' = y + ∫ sum_k eps_k·l_k(s) ds, l_k being Lagrange's basis at the newest `order` points. Cost: one
    evaluation a step. For comparison: `DEISSampler` extrapolates in log s, in which eps is smoother.
    """

    denoiser: AbstractDenoiser
    grid: AbstractGrid = KarrasGrid()
    order: Literal[1, 2, 3, 4] = eqx.field(static=True, default=4)

    renoises: ClassVar[bool] = False

    def memory(self, x_t: Batch, index: Index, steps: Index) -> History:
        """Room for `order` predictions of eps."""
        return History.empty(x_t, self.order)

    def step(self, state: State, index: Index, steps: Index, cond: Cond = None) -> State:
        """One step."""
        t, s = self.times(index, steps)
        schedule = self.denoiser.schedule
        predicted = self.denoiser(state.x, t, cond)
        history = state.memory.push(predicted.eps)
        lambda_t, *earlier = lambdas(self.grid, schedule, index, steps, self.order - 1)
        # s as its distance from the newest one, in units of the newest one.
        nodes = [jnp.expm1(lambda_t - node) for node in (lambda_t, *earlier)]
        end = jnp.expm1(lambda_t - schedule.half_log_snr(s))
        moments = [end ** (i + 1) / (i + 1) for i in range(self.order)]
        results = _results(schedule, predicted, s, history, nodes, moments, jnp.exp(-lambda_t))
        return State(
            by_order(jnp.minimum(history.length, self.order), results), state.keys, history
        )


def _results(
    schedule: AbstractSchedule,
    predicted: Prediction,
    s: Number,
    history: History,
    nodes: list[Number],
    moments: list[Number],
    unit: Number,
) -> list[Batch]:
    """The example at time s by each order from 1 on.

    The weights add up to the step in s, so what the order adds to Euler's step are differences of eps. The
    moments are in units of `unit`, the s that the step begins at.
    """
    alpha_s = schedule.alpha(s)
    newest, *older = history.predictions
    euler = alpha_s * predicted.x0 + schedule.sigma(s) * predicted.eps
    results = [euler]
    for order in range(2, len(nodes) + 1):
        _, *weights = weights_for_moments(nodes[:order], moments[:order])
        change = jnp.zeros_like(euler)
        for weight, eps in zip(weights, older, strict=False):
            change += weight * (eps - newest)
        results.append(euler + alpha_s * unit * change)
    return results
