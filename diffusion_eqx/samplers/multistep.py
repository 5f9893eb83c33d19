"""What methods share that use the predictions of earlier steps.

A multistep method fits a polynomial to the newest predictions and integrates it over the step, which
raises the order without further evaluations. It begins at order 1, when there is nothing to look back
on, and gains one with each step.
"""

from collections.abc import Sequence

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from diffusion_eqx._typing import Batch
from diffusion_eqx.samplers.grid import AbstractGrid, Index
from diffusion_eqx.schedules import AbstractSchedule

Number = Float[Array, ""]
Order = Int[Array, ""]


class History(eqx.Module):
    """The newest predictions, the newest first, and how many of them are real."""

    predictions: tuple[Batch, ...]
    count: Int[Array, " batch"]

    @staticmethod
    def empty(x: Batch, length: int) -> "History":
        """Room for `length` predictions of the shape of `x`."""
        return History((jnp.zeros_like(x),) * length, jnp.zeros(len(x), jnp.int32))

    def push(self, prediction: Batch) -> "History":
        """With one more prediction; the oldest is dropped."""
        return History((prediction, *self.predictions[:-1]), self.count + 1)

    @property
    def length(self) -> Order:
        """How many predictions are real: the same for the whole batch."""
        return self.count[0]


def lambdas(
    grid: AbstractGrid, schedule: AbstractSchedule, index: Index, steps: Index, back: int
) -> list[Number]:
    """lambda = log(alpha/sigma) at `index`, and at the `back` indices before it (0 at the least)."""
    indices = [jnp.maximum(jnp.asarray(index) - i, 0) for i in range(back + 1)]
    return [schedule.half_log_snr(grid(schedule, i, steps)) for i in indices]


def falling_order(order: int, length: Order, index: Index, steps: Index, s: Number) -> Order:
    """The order of a step to time `s`: as many predictions as there are, at most `order`.

    A step to s = 0 is infinitely long in lambda, so its order is 1. With fewer than 15 steps the last is
    of order 1 in any case, and the one before at most of order 2: extrapolation over their long intervals
    is unstable (Lu et al. 2022, appendix of DPM-Solver++).
    """
    left = steps - jnp.asarray(index)
    few = steps < 15
    to_zero = s == 0.0
    most = jnp.where(to_zero | (few & (left == 1)), 1, jnp.where(few & (left == 2), 2, order))
    return jnp.minimum(jnp.minimum(length, most), order)


def by_order(order: Order, results: Sequence[Batch]) -> Batch:
    """The result for the given order, of those for orders 1, 2, …"""
    chosen = results[0]
    for number, result in enumerate(results[1:], start=2):
        chosen = jnp.where(order >= number, result, chosen)
    return chosen


def safe(difference: Number) -> Number:
    """A difference to divide by, which is 0 only in results that are not chosen."""
    return jnp.where(difference == 0.0, 1.0, difference)


def weights_for_moments(nodes: Sequence[Number], moments: Sequence[Number]) -> list[Number]:
    """Weights w with sum_k w_k·nodes_k^i = moments_i for i = 0, 1, …

    So sum_k w_k·f(nodes_k) is the exact integral of every polynomial f of lower degree than there are
    nodes, if `moments_i` is that of the i-th power. By Lagrange's basis; not by a linear solver, whose
    LAPACK call no exported program could hold.
    """
    weights = []
    for k, node in enumerate(nodes):
        # Coefficients of prod_{j != k} (x − node_j), the constant first.
        coefficients = [jnp.ones(())]
        scale = jnp.ones(())
        for j, other in enumerate(nodes):
            if j == k:
                continue
            shifted = [jnp.zeros(()), *coefficients]
            lowered = [-other * c for c in coefficients] + [jnp.zeros(())]
            coefficients = [a + b for a, b in zip(shifted, lowered, strict=True)]
            scale = scale * safe(node - other)
        weights.append(sum(c * m for c, m in zip(coefficients, moments, strict=True)) / scale)
    return weights
