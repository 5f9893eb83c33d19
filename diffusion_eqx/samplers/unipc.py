"""UniPC (Zhao et al. 2023): a predictor and a corrector of any order at one evaluation a step."""

from typing import ClassVar, Literal

import equinox as eqx
import jax
import jax.numpy as jnp

from diffusion_eqx._typing import Batch
from diffusion_eqx.samplers.base import AbstractSampler, Bound
from diffusion_eqx.samplers.grid import AbstractGrid, FocusedGrid
from diffusion_eqx.samplers.multistep import (
    History,
    Number,
    Order,
    by_order,
    safe,
    weights_for_moments,
)
from diffusion_eqx.samplers.state import State
from diffusion_eqx.schedules import NoiseLevel


class _Memory(eqx.Module):
    """Earlier predictions of x0, and the example that the last step began with, at its level."""

    history: History
    last: Batch
    level: NoiseLevel


class UniPCSampler(AbstractSampler):
    """The unified predictor-corrector with B(h) = e^(−h) − 1, `bh2`, in x0 (Zhao et al. 2023, section 3).

    The evaluation at a point first corrects the step that led there (UniC), then predicts the next
    one (UniP). With D_k = (x0_k − x0)/r_k at earlier nodes r_k = (lambda_k − lambda_t)/h,

        x_s = (sigma_s/sigma_t)·x_t + alpha_s·(1 − e^(−h))·(x0 + sum_k rho_k·D_k)

    where rho integrates polynomials of the order exactly. The corrector, which also knows the
    prediction at s (r = 1), raises the order by one.

    - `order`: of the predictor: 1, 2 or 3.

    Cost: one evaluation a step. Of order 2, with the corrector's 3, it is the most accurate of all
    on the mixture of `benchmarks/solver_accuracy.py` at 5 to 50 steps.
    """

    order: Literal[1, 2, 3] = eqx.field(static=True, default=2)
    grid: AbstractGrid = eqx.field(default=FocusedGrid(), kw_only=True)

    stochastic: ClassVar[bool] = False
    remembers: ClassVar[bool] = True
    reference: ClassVar[str] = "Zhao et al. 2023"
    about: ClassVar[str] = "predictor of second and corrector of third order, one evaluation a step"
    use: ClassVar[str] = "recommended, from 5 steps"

    def init(self, denoise: Bound, x: Batch, t: NoiseLevel, s: NoiseLevel) -> _Memory:
        """Room for `order` predictions of x0 and for one example."""
        history = History.empty(x, self.order)
        full = jax.tree.map(lambda a: jnp.broadcast_to(a, history.count.shape), t)
        return _Memory(history, jnp.zeros_like(x), full)

    def step(self, denoise: Bound, state: State, t: NoiseLevel, s: NoiseLevel) -> State:
        """One step; the last one returns x0."""
        x0, _ = denoise(state.x, t)
        left = state.column(state.left)
        before = state.memory.history
        x = jnp.where(before.count > 0, self._corrected(state.memory, x0, t, left + 1), state.x)

        history = before.push(x0, t.lam)
        _, *earlier = history.lams
        h = s.lam - t.lam
        base = s.sigma / t.sigma * x - s.alpha * jnp.expm1(-h) * x0
        results = [base]
        for order in range(2, self.order + 1):
            ratios = [(lam - t.lam) / safe(h) for lam in earlier[: order - 1]]
            # At order 2 the weight 1/2 serves every B(h) (Zhao et al. 2023, section 3.2).
            rho = [0.5] if order == 2 else weights_for_moments(ratios, _moments(-h, order - 1))
            results.append(base - s.alpha * jnp.expm1(-h) * _differences(history, ratios, rho))
        following = by_order(self._order(history.count, left), results)
        full = jax.tree.map(lambda a, like: jnp.broadcast_to(a, like.shape), t, state.memory.level)
        return state.moved(following, _Memory(history, x, full))

    def _corrected(self, memory: _Memory, x0: Batch, t: NoiseLevel, left: Order) -> Batch:
        """The step that led to level t, taken again with the knowledge of x0 there."""
        history, b = memory.history, memory.level
        newest = history.predictions[0]
        lam_b, *earlier = history.lams
        h = t.lam - b.lam
        base = t.sigma / safe(b.sigma) * memory.last - t.alpha * jnp.expm1(-h) * newest
        results = []
        for order in range(1, self.order + 1):
            ratios = [(lam - lam_b) / safe(h) for lam in earlier[: order - 1]]
            if order == 1:
                *rho, last = [0.5]
            else:
                nodes = [*ratios, jnp.ones_like(h)]
                *rho, last = weights_for_moments(nodes, _moments(-h, order))
            change = _differences(history, ratios, rho) + last * (x0 - newest)
            results.append(base - t.alpha * jnp.expm1(-h) * change)
        return by_order(self._order(history.count, left), results)

    def _order(self, count: Order, left: Order) -> Order:
        """As many predictions as there are, and no more than steps are left."""
        return jnp.minimum(jnp.minimum(count, left), self.order)


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
