"""What methods share that use the predictions of earlier steps.

A multistep method fits a polynomial to the newest predictions and integrates it over the step,
which raises the order without further evaluations. It begins at order 1, when there is nothing to
look back on, and gains one with each step.
"""

from collections.abc import Sequence

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from diffusion_eqx._typing import Batch
from diffusion_eqx.samplers.state import State
from diffusion_eqx.schedules import NoiseLevel

# One for all examples, or one for each with the axes that it needs to multiply them.
Number = Float[Array, "..."]
Order = Int[Array, "..."]


class History(eqx.Module):
    """The newest predictions, the newest first, the lambda of each, and how many of them are real.

    Lambdas and count are of shape (batch, 1, …, 1).
    """

    predictions: tuple[Batch, ...]
    lams: tuple[Number, ...]
    count: Order

    @staticmethod
    def empty(x: Batch, length: int) -> "History":
        """Room for `length` predictions of the shape of `x`."""
        one = jnp.zeros((len(x),) + (1,) * (x.ndim - 1), x.dtype)
        count = jnp.zeros(one.shape, jnp.int32)
        return History((jnp.zeros_like(x),) * length, (one,) * length, count)

    def push(self, prediction: Batch, lam: Number) -> "History":
        """With one more prediction, made at lambda; the oldest is dropped."""
        lam = jnp.broadcast_to(lam, self.lams[0].shape)
        return History((prediction, *self.predictions[:-1]), (lam, *self.lams[:-1]), self.count + 1)


def falling_order(order: int, count: Order, state: State, s: NoiseLevel) -> Order:
    """The order of a step to level `s`: as many predictions as there are, at most `order`.

    A step to a clean level is infinitely long in lambda, so its order is 1. With fewer than 15
    steps the last is of order 1 in any case, and the one before at most of order 2: extrapolation
    over their long intervals is unstable (Lu et al. 2022, appendix of DPM-Solver++).
    """
    left, steps = state.column(state.left), state.column(state.steps)
    few = steps < 15
    most = jnp.where(s.clean | (few & (left == 1)), 1, jnp.where(few & (left == 2), 2, order))
    return jnp.minimum(jnp.minimum(count, most), order)


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

    So sum_k w_k·f(nodes_k) is the exact integral of every polynomial f of lower degree than there
    are nodes, if `moments_i` is that of the i-th power. By Lagrange's basis; not by a linear
    solver, whose LAPACK call no exported program could hold.
    """
    weights = []
    for k, node in enumerate(nodes):
        # Coefficients of prod_{j != k} (x − node_j), the constant first.
        coefficients = [jnp.ones((), node.dtype)]
        scale = jnp.ones((), node.dtype)
        for j, other in enumerate(nodes):
            if j == k:
                continue
            zero = jnp.zeros((), node.dtype)
            shifted = [zero, *coefficients]
            lowered = [-other * c for c in coefficients] + [zero]
            coefficients = [a + b for a, b in zip(shifted, lowered, strict=True)]
            scale = scale * safe(node - other)
        weights.append(sum(c * m for c, m in zip(coefficients, moments, strict=True)) / scale)
    return weights
