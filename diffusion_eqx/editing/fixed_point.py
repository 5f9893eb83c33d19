"""Fixed points of a function of a batch, by Anderson's method."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from diffusion_eqx._typing import Batch

# Of the residuals' mean square: what keeps the weights finite once all residuals are nothing but rounding.
_RIDGE = 1e-6


def fixed_point(
    function: Callable[[Batch], Batch], x: Batch, *, iterations: int, window: int = 5
) -> Batch:
    """An x with function(x) = x, example by example, after so many evaluations of `function`.

    With residuals r_i = g(x_i) − x_i of the last `window` iterates, the next one is sum_i w_i·g(x_i), whose
    weights, of sum 1, minimise |sum_i w_i·r_i| (Anderson 1965; Walker & Ni 2011, algorithm AA). It
    converges faster than x := g(x), and often where that does not. Each example is solved by itself, and
    what is returned of it is the g(x_i) of the least residual. One iteration gives function(x).
    """
    window = min(window, iterations)
    shape = (window, *x.shape)

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

    start = (x, jnp.zeros(shape), jnp.zeros(shape), x, jnp.full(len(x), jnp.inf))
    return jax.lax.fori_loop(0, iterations, improve, start)[3]


def _weights(
    residuals: Float[Array, "window batch *shape"], used: Array
) -> Float[Array, "batch window"]:
    """The weights that minimise the combined residual of each example; those not `used` get none."""
    flat = residuals.reshape(*residuals.shape[:2], -1)
    gram = jnp.einsum("ibn,jbn->bij", flat, flat)
    mean = jnp.trace(gram, axis1=1, axis2=2)[:, None, None] / jnp.sum(used)
    # Where all residuals are zero every weight will do.
    gram = gram / jnp.where(mean > 0.0, mean, 1.0)
    both = used[:, None] & used[None, :]
    gram = jnp.where(both, gram, 0.0) + jnp.diag(jnp.where(used, _RIDGE, 1.0))
    ones = jnp.broadcast_to(used.astype(flat.dtype)[:, None], (*gram.shape[:2], 1))
    solved = jnp.linalg.solve(gram, ones)[..., 0]
    return solved / jnp.sum(solved, axis=-1, keepdims=True)
