"""Modules with random weights, made without compiling anything."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np


def is_shape(leaf: Any) -> bool:
    return isinstance(leaf, jax.ShapeDtypeStruct)


def filled(make: Any, *arguments: Any, seed: int = 0, **fields: Any) -> Any:
    """What `make(*arguments, key=…, **fields)` gives, but no weight is at a start of zero.

    Arrays are N(0, 1/inputs), scales of norms near 1. Drawing each of many shapes by jax would take far
    longer to compile than what is tested.
    """
    rng = np.random.default_rng(seed)

    def fill(path: tuple[Any, ...], leaf: Any) -> Any:
        if not is_shape(leaf):
            return leaf
        inputs = int(np.prod(leaf.shape[:-1])) if len(leaf.shape) > 1 else 100
        offset = 1.0 if jax.tree_util.keystr(path).endswith("gamma") else 0.0
        return jnp.asarray(offset + rng.standard_normal(leaf.shape) / inputs**0.5, leaf.dtype)

    empty = eqx.filter_eval_shape(make, *arguments, key=jax.random.key(0), **fields)
    return jax.tree_util.tree_map_with_path(fill, empty)
