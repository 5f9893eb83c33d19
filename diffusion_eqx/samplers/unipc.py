"""UniPC (Zhao et al. 2023): a predictor and a corrector of any order at one evaluation a step."""

from typing import ClassVar, Literal

import equinox as eqx
import jax.numpy as jnp

from diffusion_eqx._typing import Batch, Cond
from diffusion_eqx.denoiser import AbstractDenoiser
from diffusion_eqx.samplers.base import AbstractMethod, State
from diffusion_eqx.samplers.grid import AbstractGrid, FocusedGrid, Index
from diffusion_eqx.samplers.multistep import (
    History,
    Number,
    Order,
    by_order,
    lambdas,
    safe,
    weights_for_moments,
)


class _Memory(eqx.Module):
    """Earlier predictions of x0, and the example that the last step began with."""

    history: History
    last: Batch


class UniPC(AbstractMethod):
    """The unified predictor-corrector with B(h) = e^(−h) − 1, `bh2`, in x0 (Zhao et al. 2023, section 3).

    The evaluation at a point first corrects the step that led there (UniC), then predicts the next one
    (UniP). With D_k = (x0_k − x0)/r_k at earlier nodes r_k = (lambda_k − lambda_t)/h,

        x_s = (sigma_s/sigma_t)·x_t + alpha_s·(1 − e^(−h))·(x0 + sum_k rho_k·D_k)

    where rho integrates polynomials of the order exactly. The corrector, which also knows the prediction
    at s (r = 1), raises the order by one. Cost: one evaluation a step. Of order 2, with the corrector's 3,
    it is the most accurate of all on the mixture of `benchmarks/solver_accuracy.py` at 5 to 50 steps.
    """

    denoiser: AbstractDenoiser
    grid: AbstractGrid = FocusedGrid()
    order: Literal[1, 2, 3] = eqx.field(static=True, default=2)

    renoises: ClassVar[bool] = False

    def memory(self, x_t: Batch, index: Index, steps: Index) -> _Memory:
        """Room for `order` predictions of x0 and for one example."""
        return _Memory(History.empty(x_t, self.order), jnp.zeros_like(x_t))

    def step(self, state: State, index: Index, steps: Index, cond: Cond = None) -> State:
        """One step; the last one (s = 0) returns x0."""
        t, s = self.times(index, steps)
        schedule = self.denoiser.schedule
        x0 = self.denoiser(state.x, t, cond).x0
        nodes = lambdas(self.grid, schedule, index, steps, self.order)
        before = state.memory.history
        x = jnp.where(
            before.length > 0, self._corrected(state, x0, t, nodes, index, steps), state.x
        )

        history = before.push(x0)
        lambda_t, *earlier = nodes
        h = schedule.half_log_snr(s) - lambda_t
        base = schedule.sigma(s) / schedule.sigma(t) * x - schedule.alpha(s) * jnp.expm1(-h) * x0
        results = [base]
        for order in range(2, self.order + 1):
            ratios = [(node - lambda_t) / safe(h) for node in earlier[: order - 1]]
            # At order 2 the weight 1/2 serves every B(h) (Zhao et al. 2023, section 3.2).
            rho = [0.5] if order == 2 else weights_for_moments(ratios, _moments(-h, order - 1))
            results.append(
                base - schedule.alpha(s) * jnp.expm1(-h) * _differences(history, ratios, rho)
            )
        following = by_order(_order(self.order, history.length, index, steps), results)
        return State(following, state.keys, _Memory(history, x))

    def _corrected(
        self,
        state: State,
        x0: Batch,
        t: Number,
        nodes: list[Number],
        index: Index,
        steps: Index,
    ) -> Batch:
        """The step that led to time t, taken again with the knowledge of x0 there."""
        schedule, history, x = self.denoiser.schedule, state.memory.history, state.memory.last
        before = self.grid(schedule, jnp.maximum(jnp.asarray(index) - 1, 0), steps)
        lambda_t, lambda_b, *earlier = nodes
        h = lambda_t - lambda_b
        alpha = schedule.alpha(t)
        newest = history.predictions[0]
        base = schedule.sigma(t) / schedule.sigma(before) * x - alpha * jnp.expm1(-h) * newest
        results = []
        for order in range(1, self.order + 1):
            ratios = [(node - lambda_b) / safe(h) for node in earlier[: order - 1]]
            if order == 1:
                *rho, last = [0.5]
            else:
                *rho, last = weights_for_moments([*ratios, jnp.ones(())], _moments(-h, order))
            change = _differences(history, ratios, rho) + last * (x0 - newest)
            results.append(base - alpha * jnp.expm1(-h) * change)
        order = _order(self.order, history.length, jnp.asarray(index) - 1, steps)
        return by_order(order, results)


def _order(order: int, length: Order, index: Index, steps: Index) -> Order:
    """As many predictions as there are, and no more than steps are left."""
    return jnp.minimum(jnp.minimum(length, steps - jnp.asarray(index)), order)


def _moments(h: Number, count: int) -> list[Number]:
    """i!·phi_{i+1}(h)·h/B(h) for i = 1 … count, phi being the exponential integrators' functions."""
    h = safe(h)
    scale = jnp.expm1(h)
    phi, factorial, moments = scale / h - 1.0, 1.0, []
    for i in range(1, count + 1):
        moments.append(phi * factorial / safe(scale))
        factorial *= i + 1
        phi = phi / h - 1.0 / factorial
    return moments


def _differences(history: History, ratios: list[Number], rho) -> Batch:
    """sum_k rho_k·(x0_k − x0)/r_k over the earlier predictions."""
    newest, *older = history.predictions
    total = jnp.zeros_like(newest)
    for ratio, weight, prediction in zip(ratios, rho, older, strict=False):
        total += weight / safe(ratio) * (prediction - newest)
    return total
