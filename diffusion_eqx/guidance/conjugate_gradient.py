"""Conjugate gradients with a fixed number of iterations, so that exported programs can hold them."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from diffusion_eqx._typing import Batch

# One number for each example, with the axes that it needs to multiply a batch.
_Number = Float[Array, "batch ..."]


def conjugate_gradient(
    apply: Callable[[Batch], Batch], right_side: Batch, *, iterations: int
) -> Batch:
    """Solve apply(v) = right_side for each example of a batch (Hestenes & Stiefel 1952).

    `apply` is linear, symmetric and positive definite, and acts on each example apart. The start is 0; the
    error is least in the operator's norm among all vectors that so many applications can reach. Examples
    that are solved earlier stay as they are. Shapes are equal.
    """
    axes = tuple(range(1, right_side.ndim))

    def dot(a: Batch, b: Batch) -> _Number:
        return jnp.sum(a * b, axis=axes, keepdims=True)

    start = dot(right_side, right_side)
    # Below it a residual is rounding, whose direction would lead astray.
    solved = start * jnp.finfo(right_side.dtype).eps ** 2

    def ratio(a: _Number, b: _Number) -> _Number:
        return jnp.where(b > 0.0, a / jnp.where(b > 0.0, b, 1.0), 0.0)

    def improve(_, carry):
        solution, residual, direction, square = carry
        applied = apply(direction)
        length = jnp.where(square > solved, ratio(square, dot(direction, applied)), 0.0)
        solution = solution + length * direction
        residual = residual - length * applied
        new_square = dot(residual, residual)
        direction = residual + ratio(new_square, square) * direction
        return solution, residual, direction, new_square

    carry = (jnp.zeros_like(right_side), right_side, right_side, start)
    return jax.lax.fori_loop(0, iterations, improve, carry)[0]
