"""Random numbers of a sample, the same however samples are batched.

Image k of a run has the key fold_in(key, k). Its initial noise is drawn with fold_in(·, 0) of that, the
noise of step i with fold_in(·, i + 1). So an image depends on the run's key and on k, but not on the
batch it is computed in, nor on the program (Python or native) that computes it.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from diffusion_eqx._typing import Batch, BatchKeys, PRNGKey


def image_keys(key: PRNGKey, count: int, first: int | Int[Array, ""] = 0) -> BatchKeys:
    """The keys of images first … first + count − 1."""
    numbers = jnp.asarray(first, jnp.int32) + jnp.arange(count, dtype=jnp.int32)
    return jax.vmap(lambda number: jax.random.fold_in(key, number))(numbers)


def draw(keys: BatchKeys, role: int | Int[Array, ""], shape: tuple[int, ...]) -> Batch:
    """Standard normal noise, one example of `shape` for each key."""
    return jax.vmap(lambda key: jax.random.normal(jax.random.fold_in(key, role), shape))(keys)
