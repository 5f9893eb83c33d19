"""A dense layer over the last axis."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from diffusion_eqx._typing import PRNGKey


class Linear(eqx.Module):
    """y = x W + b on the last axis of an array of any rank.

    Weights are (in, out), so that a batch of rows is one matrix product without a transpose, and
    start uniform in ±1/sqrt(in); `zero=True` starts them at 0 (for the last layer of a residual branch).
    """

    weight: Float[Array, "in_features out_features"]
    bias: Float[Array, " out_features"]

    def __init__(self, in_features: int, out_features: int, *, key: PRNGKey, zero: bool = False):
        bound = 0.0 if zero else in_features**-0.5
        shape = (in_features, out_features)
        self.weight = jax.random.uniform(key, shape, minval=-bound, maxval=bound)
        self.bias = jnp.zeros(out_features)

    def __call__(self, x: Float[Array, "*lead in_features"]) -> Float[Array, "*lead out_features"]:
        """Shapes (…, in) to (…, out)."""
        return x @ self.weight + self.bias
