"""Random keys as plain numbers, for files and exported programs, which know no key type."""

from typing import Any

import jax
import jax.numpy as jnp


def is_key(leaf: Any) -> bool:
    """Whether an array (or the shape and dtype of one) holds typed random keys."""
    return hasattr(leaf, "dtype") and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def to_numbers(tree: Any) -> Any:
    """Replace each array of keys, of shape S, by its uint32 numbers, of shape S + (2,)."""
    return jax.tree.map(lambda leaf: jax.random.key_data(leaf) if is_key(leaf) else leaf, tree)


def to_keys(tree: Any, like: Any) -> Any:
    """Inverse of `to_numbers`; `like` says which arrays were keys."""
    return jax.tree.map(
        lambda leaf, model: jax.random.wrap_key_data(leaf) if is_key(model) else leaf, tree, like
    )
