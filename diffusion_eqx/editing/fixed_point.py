"""Fixed points of a function of a batch, by Anderson's method."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from diffusion_eqx._typing import Batch

# Of the residuals' mean square: what keeps the weights finite once all residuals are nothing but rounding.
_RIDGE = 1e-6


def fixed_point(
    function: Callable[[Batch], Batch], x: Batch, *, iterations: int, window: int = 5
) -> Batch:
    """An x with function(x) = x, example by example, after so many evaluations of `function`.

    Let r_i = g(x_i) − x_i be the residuals of the last `window` iterates. The next iterate is sum_i
    w_i·g(x_i), whose weights, of sum 1, minimise |sum_i w_i·r_i| (Anderson 1965; Walker & Ni 2011,
    algorithm AA). It converges faster than x := g(x), and often where that does not. Each example is solved
    by itself. What is returned of it is the g(x_i) of the least residual, so one iteration gives
    function(x).

    **Raises:** `ValueError` if `iterations` or `window` is below 1.
    """
    for name, number in (("iterations", iterations), ("window", window)):
        if number < 1:
            raise ValueError(f"{name} must be at least 1; got {number}")
    window = min(window, iterations)

    def improve(index: Array, carry):
        x, values, residuals, best, least = carry
        value = function(x)
        residual = value - x
        slot = index % window
        values, residuals = values.at[slot].set(value), residuals.at[slot].set(residual)
        size = jnp.sum(residual.reshape(len(x), -1) ** 2, axis=-1)
        better = size < least
        best = jnp.where(better.reshape((-1,) + (1,) * (x.ndim - 1)), value, best)
        least = jnp.where(better, size, least)
        weights = _weights(residuals, jnp.arange(window) <= index)
        return jnp.einsum("bw,wb...->b...", weights, values), values, residuals, best, least

    empty = jnp.zeros((window, *x.shape), x.dtype)
    start = (x, empty, empty, x, jnp.full(len(x), jnp.inf, x.dtype))
    return jax.lax.fori_loop(0, iterations, improve, start)[3]


def _weights(
    residuals: Float[Array, "window batch *shape"], used: Bool[Array, " window"]
) -> Float[Array, "batch window"]:
    """The weights that minimise the combined residual of each example; those not `used` get none."""
    flat = residuals.reshape(*residuals.shape[:2], -1)
    gram = jnp.einsum("ibn,jbn->bij", flat, flat)
    mean = jnp.trace(gram, axis1=1, axis2=2)[:, None, None] / jnp.sum(used).astype(flat.dtype)
    # Where all residuals are zero every weight will do.
    gram = gram / jnp.where(mean > 0.0, mean, 1.0)
    both = used[:, None] & used[None, :]
    ridge = jnp.diag(jnp.where(used, _RIDGE, 1.0).astype(flat.dtype))
    gram = jnp.where(both[None], gram, 0.0) + ridge[None]
    solved = _solved(gram, jnp.broadcast_to(used.astype(flat.dtype)[None], gram.shape[:2]))
    return solved / jnp.sum(solved, axis=-1, keepdims=True)


def _solved(
    matrix: Float[Array, "batch n n"], right: Float[Array, "batch n"]
) -> Float[Array, "batch n"]:
    """The solution of each small system whose matrix is symmetric, with no eigenvalue below the ridge.

    By Gaussian elimination, written out: jnp.linalg.solve would be a call of LAPACK, which no exported
    program may hold. Such a matrix needs no pivoting, and no pivot of it is below its least eigenvalue;
    rounding alone could make one smaller.
    """
    size = matrix.shape[-1]
    rows = [jnp.concatenate([matrix[:, i], right[:, i, None]], axis=-1) for i in range(size)]
    for i in range(size):
        pivot = jnp.maximum(rows[i][:, i], _RIDGE)
        for j in range(i + 1, size):
            rows[j] = rows[j] - (rows[j][:, i] / pivot)[:, None] * rows[i]
    found: list[Array] = []
    for i in reversed(range(size)):
        known = sum((rows[i][:, i + 1 + n] * x for n, x in enumerate(found)), start=0.0)
        found.insert(0, (rows[i][:, -1] - known) / jnp.maximum(rows[i][:, i], _RIDGE))
    return jnp.stack(found, axis=-1)
