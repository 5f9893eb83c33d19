"""The way between two vectors along a sphere."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from diffusion_eqx._typing import Batch, Real
from diffusion_eqx.schedules import over

# The angle's sine below which the great circle is not told from a straight line in float32.
_PARALLEL = 1e-4


def slerp(first: Batch, second: Batch, weight: Real) -> Batch:
    """The point at `weight` of the way along the arc from `first` to `second`, for each example.

        (sin((1 − w)·angle)·first + sin(w·angle)·second) / sin(angle)

    (Shoemake 1985). Vectors of one norm keep it, as noise must: a straight line would pass through vectors
    too short to be noise. Three cases have no arc of their own:

    - Nearly parallel vectors, and any vector and zero: the straight line.
    - Opposite vectors: of all the half circles between them, the one through `first` with each pair of
      neighbouring coordinates turned by a quarter, (a, b) to (−b, a). Halfway is then noise again. The norm
      changes evenly from one to the other.
    - Opposite vectors of one coordinate: the straight line, since there is no way around zero.

    `first` and `second` have one shape. `weight` is in [0, 1]: one number for all examples, or one for
    each.
    """
    weight = over(jnp.asarray(weight, first.dtype), first)
    a, b = _unit(first), _unit(second)
    # The arc cosine of the scalar product would lose half the digits of a small angle.
    angle = 2.0 * jnp.arctan2(_norm(a - b), _norm(a + b))
    sine = jnp.sin(angle)
    arc = sine >= _PARALLEL
    safe = jnp.where(arc, sine, 1.0)
    across = _unit(_quarter_turned(a))
    some = (_norm(first) > 0.0) & (_norm(second) > 0.0)
    opposite = ~arc & (angle > 0.5 * jnp.pi) & some & (_norm(across) > 0.0)
    length = (1.0 - weight) * _norm(first) + weight * _norm(second)
    around = length * (jnp.cos(weight * jnp.pi) * a + jnp.sin(weight * jnp.pi) * across)
    of_first = jnp.where(arc & some, jnp.sin((1.0 - weight) * angle) / safe, 1.0 - weight)
    of_second = jnp.where(arc & some, jnp.sin(weight * angle) / safe, weight)
    return jnp.where(opposite, around, of_first * first + of_second * second)


def _norm(x: Batch) -> Float[Array, "batch ..."]:
    return jnp.sqrt(jnp.sum(x**2, axis=tuple(range(1, x.ndim)), keepdims=True))


def _unit(x: Batch) -> Batch:
    """Each example divided by its norm; zero stays zero."""
    norm = _norm(x)
    return x / jnp.where(norm > 0.0, norm, 1.0)


def _quarter_turned(x: Batch) -> Batch:
    """(a, b) to (−b, a) for each pair of neighbouring coordinates; one left over becomes 0."""
    flat = x.reshape(len(x), -1)
    pairs = flat[:, : flat.shape[1] // 2 * 2].reshape(len(x), -1, 2)
    turned = jnp.stack([-pairs[..., 1], pairs[..., 0]], axis=-1).reshape(len(x), -1)
    rest = jnp.zeros((len(x), flat.shape[1] % 2), x.dtype)
    return jnp.concatenate([turned, rest], axis=1).reshape(x.shape)
