"""A dense layer over the last axis."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from diffusion_eqx._typing import PRNGKey


class Linear(eqx.Module):
    """y = x W + b on the last axis of an array of any rank.

    - `in_features`, `out_features`: the sizes of the last axis, before and after
    - `zero`: start the weights at 0, as in the last layer of a residual branch, instead of uniform in
      ±1/sqrt(in_features). The bias always starts at 0.

    The weights are (in, out), so that a batch of rows needs one matrix product and no transpose.
    """

    weight: Float[Array, "in_features out_features"]
    bias: Float[Array, " out_features"]

    def __init__(self, in_features: int, out_features: int, *, key: PRNGKey, zero: bool = False):
        bound = 0.0 if zero else in_features**-0.5
        shape = (in_features, out_features)
        self.weight = jax.random.uniform(key, shape, minval=-bound, maxval=bound)
        self.bias = jnp.zeros(out_features)

    def __call__(self, x: Float[Array, "*lead in_features"]) -> Float[Array, "*lead out_features"]:
        """(…, in_features) to (…, out_features), in the dtype of the weights.

        **Raises:** `TypeError` if `x` has another dtype than the weights.
        """
        check_dtype(x, self.weight)
        return add_bias(x @ self.weight, self.bias)


def check_dtype(x: Float[Array, "..."], weight: Float[Array, "..."]) -> None:
    """Refuse an input of another precision than the weights, which would decide the precision in silence.

    **Raises:** `TypeError` if the dtypes differ.
    """
    if x.dtype != weight.dtype:
        raise TypeError(
            f"the layer's weights are {weight.dtype} and its input is {x.dtype}: call the network through "
            "a Denoiser or precision.at_edge, which cast at its edge, or cast the input yourself"
        )


def add_bias(
    y: Float[Array, "*lead features"], bias: Float[Array, " features"]
) -> Float[Array, "*lead features"]:
    """y + bias along the last axis. The broadcast is written out, for those who have JAX refuse others."""
    return y + jnp.broadcast_to(bias, y.shape)
