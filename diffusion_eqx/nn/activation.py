"""The nonlinearities that a configuration can name."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "silu": jax.nn.silu,
    "gelu": jax.nn.gelu,
    "relu": jax.nn.relu,
    "mish": jax.nn.mish,
    "tanh": jnp.tanh,
}
"""Name to function, each of one array."""
