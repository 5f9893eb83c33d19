"""Interpolation of images along the sphere of their noises."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from diffusion_eqx._typing import Batch, Cond, Real
from diffusion_eqx.editing.inversion import ddim_invert
from diffusion_eqx.samplers.ddim import DDIMSampler
from diffusion_eqx.samplers.drive import sample_from

# The angle's sine below which the great circle is not told from the straight line in float32.
_PARALLEL = 1e-4


def slerp(first: Batch, second: Batch, weight: Real) -> Batch:
    """The point at `weight` of the way along the arc from `first` to `second`, for each example.

        (sin((1 − w)·angle)·first + sin(w·angle)·second) / sin(angle)

    (Shoemake 1985). Vectors of one norm keep it, as noise must: a straight line would pass through
    vectors too short to be noise. Where the two are nearly parallel, or opposite, so that no arc is
    marked out, it is the straight line. Shapes are equal.
    """
    axes = tuple(range(1, first.ndim))

    def norm(x: Batch) -> Float[Array, "batch ..."]:
        return jnp.sqrt(jnp.sum(x**2, axis=axes, keepdims=True))

    tiny = jnp.finfo(first.dtype).tiny
    a = first / jnp.maximum(norm(first), tiny)
    b = second / jnp.maximum(norm(second), tiny)
    # The arc cosine of the scalar product would lose half the digits of a small angle.
    angle = 2.0 * jnp.arctan2(norm(a - b), norm(a + b))
    sine = jnp.sin(angle)
    straight = sine < _PARALLEL
    sine = jnp.where(straight, 1.0, sine)
    weight = jnp.asarray(weight, first.dtype)
    of_first = jnp.where(straight, 1.0 - weight, jnp.sin((1.0 - weight) * angle) / sine)
    of_second = jnp.where(straight, weight, jnp.sin(weight * angle) / sine)
    return of_first * first + of_second * second


def interpolate(
    sampler: DDIMSampler,
    first: Batch,
    second: Batch,
    *,
    count: int,
    steps: int,
    iterations: int = 3,
    cond: Cond = None,
) -> Float[Array, "count batch *shape"]:
    """Images on the way from `first` to `second`: both inverted, `slerp` between their noises, sampled.

    Song et al. (2021, section 5.3). Returns `count` images of each pair at equal distances, the ends
    included, which return the two images up to the error of `ddim_invert`. `cond` is one for each pair;
    images of different classes need an unconditional denoiser (or condition).

    **Raises:** `ValueError` if `count` < 2, the shapes differ, or as `ddim_invert`.
    """
    if count < 2:
        raise ValueError(f"count must be at least 2, for the two ends; got {count}")
    if first.shape != second.shape:
        raise ValueError(
            f"the images to interpolate must have one shape; got {first.shape} and {second.shape}"
        )
    pairs = len(first)
    twice = jax.tree.map(lambda c: jnp.concatenate([c, c]), cond)
    noise = ddim_invert(
        sampler, jnp.concatenate([first, second]), steps=steps, iterations=iterations, cond=twice
    )
    between = [slerp(noise[:pairs], noise[pairs:], i / (count - 1)) for i in range(count)]
    repeated = jax.tree.map(lambda c: jnp.concatenate([c] * count), cond)
    # Deterministic: the key decides nothing.
    drawn = sample_from(
        sampler, jnp.concatenate(between), steps=steps, key=jax.random.key(0), cond=repeated
    )
    return drawn.reshape(count, *first.shape)
