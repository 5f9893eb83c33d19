"""A fingerprint of arrays, by which a damaged checkpoint is known."""

import hashlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, UInt32

from diffusion_eqx.random_keys import to_numbers

_GOLDEN = 0x9E3779B9


def digest(tree: Any, text: str = "") -> str:
    """64 hexadecimal digits that a change of any bit of the arrays, or of `text`, changes.

    Each array gives two sums over its entries, of bits mixed with their place; sums do not depend on how an
    array is spread over devices.
    """
    leaves = jax.tree.leaves(to_numbers(tree))
    described = "".join(f"{leaf.dtype}{leaf.shape}" for leaf in leaves)
    # One after the other: the sums of sharded arrays are messages between devices, and programs that wait
    # for each other's messages at the same time can wait forever where devices share threads.
    jax.block_until_ready(leaves)
    sums = [np.asarray(_sums_of(leaf)) for leaf in leaves]
    content = b"".join(np.asarray(pair, "<u4").tobytes() for pair in sums)
    return hashlib.sha256(content + described.encode() + text.encode()).hexdigest()


# One program for each shape: of a network's hundreds of arrays few differ in shape, and one program for all
# of them takes far longer to compile.
@jax.jit
def _sums_of(array: Array) -> UInt32[Array, "2"]:
    words = _words(array)
    place = jnp.uint32(0)
    # The place of each word in the whole array, made without flattening, which would move sharded arrays.
    for axis, size in enumerate(words.shape):
        place = place * jnp.uint32(size) + jax.lax.broadcasted_iota(jnp.uint32, words.shape, axis)
    place = _mixed(place + jnp.uint32(_GOLDEN))
    one = _mixed(words ^ place)
    other = _mixed(words + (place * jnp.uint32(_GOLDEN) | jnp.uint32(1)))
    return jnp.stack([jnp.sum(one, dtype=jnp.uint32), jnp.sum(other, dtype=jnp.uint32)])


def _words(array: Array) -> UInt32[Array, "..."]:
    """The bits of an array as 32-bit words, of its shape, or with an axis more for 64-bit numbers."""
    if array.dtype == jnp.bool_:
        return array.astype(jnp.uint32)
    bits = array.dtype.itemsize * 8
    if bits == 64:
        return jax.lax.bitcast_convert_type(array, jnp.uint32)
    narrow = {8: jnp.uint8, 16: jnp.uint16, 32: jnp.uint32}[bits]
    return jax.lax.bitcast_convert_type(array, narrow).astype(jnp.uint32)


def _mixed(word: Array) -> Array:
    """A bijection of 32-bit words in which each bit depends on all (the finisher of MurmurHash3)."""
    word = (word ^ (word >> 16)) * jnp.uint32(0x85EBCA6B)
    word = (word ^ (word >> 13)) * jnp.uint32(0xC2B2AE35)
    return word ^ (word >> 16)
