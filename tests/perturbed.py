"""Weights that are not at their starting point, where many layers are zero and prove nothing."""

import equinox as eqx
import jax


def perturbed(module, *, key, scale: float = 0.1):
    """The module with Gaussian noise added to every trainable array."""
    arrays, rest = eqx.partition(module, eqx.is_inexact_array)
    leaves, treedef = jax.tree.flatten(arrays)
    keys = jax.random.split(key, len(leaves))
    noisy = [a + scale * jax.random.normal(k, a.shape) for a, k in zip(leaves, keys, strict=True)]
    return eqx.combine(jax.tree.unflatten(treedef, noisy), rest)
