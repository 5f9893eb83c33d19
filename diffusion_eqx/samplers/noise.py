"""Random numbers of a sample: the same on every device, and however samples are batched.

Image k of a run has the key fold_in(key, k). Its initial noise is drawn with fold_in(·, 0) of that, the
noise of step i with fold_in(·, i + 1). So an image depends on the run's key and on k, but not on the
batch it is computed in, nor on the program (Python or native) that computes it.

`jax.random.normal` is not used: its last bits depend on how a compiler rounds a logarithm and fuses
multiplications. Here random bits become a normal number by integer arithmetic alone.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key, UInt32
from scipy import special

from diffusion_eqx._typing import Batch, BatchKeys, PRNGKey

_SEGMENT_BITS = 8
_FRACTION_BITS = 12
# Fixed point with so many bits after the point: the largest quantile, 6.3, fits into 31 bits.
_SCALE_BITS = 28


def image_keys(key: PRNGKey, count: int, first: int | Int[Array, ""] = 0) -> BatchKeys:
    """The keys of images first … first + count − 1."""
    numbers = jnp.asarray(first, jnp.int32) + jnp.arange(count, dtype=jnp.int32)
    return jax.vmap(lambda number: jax.random.fold_in(key, number))(numbers)


def draw(
    keys: BatchKeys, role: int | Int[Array, ""] | Int[Array, " batch"], shape: tuple[int, ...]
) -> Batch:
    """Standard normal noise, one example of `shape` for each key.

    `role`: what the noise is for, one number for all examples or one for each. One key gives
    independent noise for each role.
    """
    roles = jnp.broadcast_to(jnp.asarray(role, jnp.int32), keys.shape)
    return jax.vmap(lambda key, role: exact_normal(jax.random.fold_in(key, role), shape))(
        keys, roles
    )


def exact_normal(key: Key[Array, ""], shape: tuple[int, ...]) -> Float[Array, "..."]:
    """Standard normal numbers that are the same, bit for bit, on every device.

    One of 32 random bits is the sign; the others, as u, choose the half-normal quantile of the upper
    tail probability (u + 1)/2³¹. Quantiles are tabulated at 2⁸ equal steps of each octave of u and
    interpolated linearly, all in integers (hierarchical segmentation as in Cheung et al. 2007). They
    are off by less than 3e-6.
    """
    bits = jax.random.bits(key, shape, jnp.uint32)
    return quantile_of_bits(bits)


def quantile_of_bits(bits: UInt32[Array, "*shape"]) -> Float[Array, "*shape"]:
    """The normal number that 32 random bits stand for; see `exact_normal`."""
    u = (bits >> 1) + jnp.uint32(1)  # 1 … 2³¹
    zeros = jax.lax.clz(u)  # 0 … 31: u lies in the octave that begins at 2^(31 − zeros)
    mantissa = u << zeros  # leading one at bit 31
    segment = (mantissa >> (31 - _SEGMENT_BITS)) & (2**_SEGMENT_BITS - 1)
    fraction = (mantissa >> (31 - _SEGMENT_BITS - _FRACTION_BITS)) & (2**_FRACTION_BITS - 1)
    node = ((31 - zeros) * 2**_SEGMENT_BITS + segment).astype(jnp.int32)
    table = jnp.asarray(_nodes())
    start, end = table[node], table[node + 1]
    # Quantiles fall as u grows; a difference has at most 20 bits, so the product fits into 32.
    size = start - (((start - end) * fraction) >> _FRACTION_BITS)
    negative = (bits & 1).astype(bool)
    fixed = size.astype(jnp.int32)
    scaled = jnp.where(negative, -fixed, fixed).astype(jnp.float32) * np.float32(2.0**-_SCALE_BITS)
    return scaled.astype(float)


@functools.cache
def _nodes() -> np.ndarray:
    """Fixed-point quantiles at the segments' ends, in the order of growing u: uint32 (32·2⁸ + 1,)."""
    steps = 2**_SEGMENT_BITS
    octave, segment = np.divmod(np.arange(32 * steps + 1), steps)
    u = 2.0**octave * (1.0 + segment / steps)
    # The last octave holds only u = 2³¹, of probability 1.
    quantile = -special.ndtri(np.minimum(u / 2.0**31, 1.0) / 2.0)
    return np.round(quantile * 2.0**_SCALE_BITS).astype(np.uint32)
