"""Modules with random weights, made without compiling anything."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np


def is_shape(leaf) -> bool:
    return isinstance(leaf, jax.ShapeDtypeStruct)


def filled(make, *arguments, seed: int = 0, scale: float = 0.2, **fields):
    """What `make(*arguments, key=…, **fields)` would give, every array N(0, scale²)."""
    empty = eqx.filter_eval_shape(make, *arguments, key=jax.random.key(0), **fields)
    rng = np.random.default_rng(seed)

    def fill(leaf):
        return jnp.asarray(scale * rng.standard_normal(leaf.shape), leaf.dtype)

    return jax.tree.map(lambda leaf: fill(leaf) if is_shape(leaf) else leaf, empty)
