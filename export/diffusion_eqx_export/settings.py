"""The settings of JAX under which artifacts are made and verified.

An artifact must not depend on the environment of the user who exports it: neither on
`JAX_DEFAULT_PRNG_IMPL`, which chooses another generator of random numbers, nor on
`JAX_THREEFRY_PARTITIONABLE`, which chooses other bits, nor on `JAX_ENABLE_X64`, which chooses other
dtypes. Everything that traces, lowers or runs a program of an artifact does so inside `pinned()`, and
every key is made by `seed_key` or `wrap_keys`.
"""

import contextlib
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from diffusion_eqx_export.errors import NoCPUBackend

# The generator of random numbers (FORMAT.md, section 4).
GENERATOR = "threefry2x32"

_NARROWER = {
    "float64": jnp.float32,
    "int64": jnp.int32,
    "uint64": jnp.uint32,
    "complex128": jnp.complex64,
}


@contextlib.contextmanager
def pinned() -> Iterator[None]:
    """Set what changes the programs of an artifact: generator, its bits, dtypes, compiling."""
    with (
        jax.default_prng_impl(GENERATOR),
        jax.threefry_partitionable(True),
        jax.enable_x64(False),
        jax.disable_jit(False),
    ):
        yield


def seed_words(seed: int) -> np.ndarray:
    """The two words of a key that stand for a seed in 0 … 2³²−1: uint32 `[0, seed]`."""
    return np.array([0, seed], np.uint32)


def wrap_keys(words: Any) -> jax.Array:
    """Typed keys from their words, uint32 (..., 2)."""
    return jax.random.wrap_key_data(jnp.asarray(words), impl=GENERATOR)


def seed_key(seed: int) -> jax.Array:
    """The typed key of a seed. `jax.random.key` would add `JAX_RANDOM_SEED_OFFSET` to it."""
    return wrap_keys(seed_words(seed))


def to_words(tree: Any) -> Any:
    """The tree with each array of typed keys, of shape S, as its words, uint32 S + (2,)."""
    return jax.tree.map(lambda a: jax.random.key_data(a) if _is_key(a) else jnp.asarray(a), tree)


def to_keys(tree: Any, like: Any) -> Any:
    """The inverse of `to_words`. `like` holds typed keys, or their shapes, where keys are meant."""
    return jax.tree.map(lambda a, model: wrap_keys(a) if _is_key(model) else a, tree, like)


def _is_key(leaf: Any) -> bool:
    return hasattr(leaf, "dtype") and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def cpu_device() -> Any:
    """The CPU on which reference images are drawn and verified.

    **Raises:** `NoCPUBackend`.
    """
    try:
        return jax.local_devices(backend="cpu")[0]
    # jax asserts that there is some backend, where JAX_PLATFORMS names only what is not installed.
    except (RuntimeError, AssertionError) as error:
        reason = str(error) or "no backend at all"
        raise NoCPUBackend(
            "JAX has no CPU backend here, and reference images are drawn and verified on a CPU: name it "
            f"in JAX_PLATFORMS too, for example JAX_PLATFORMS=cuda,cpu ({reason})"
        ) from error


def to_32_bits(tree: Any) -> Any:
    """Narrow arrays of 64 bits to 32 bits; call it outside `pinned()`. Other leaves stay as they are."""

    def narrow(leaf: Any) -> Any:
        dtype = _NARROWER.get(str(leaf.dtype)) if isinstance(leaf, jax.Array) else None
        return leaf if dtype is None else leaf.astype(dtype)

    return jax.tree.map(narrow, tree)
