"""Channels-last convolution, and how the resolution is doubled.

`eqx.nn.Conv2d` is channels-first. Inside a loop, XLA's CPU compiler then falls back to a naive
convolution that is twenty times slower (jax issue 12868), and GPUs need extra transposes. So
activations here are NHWC, kernels are HWIO, and a layer sees the whole batch.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from diffusion_eqx._typing import Images, PRNGKey
from diffusion_eqx.nn.linear import add_bias, check_dtype


class Conv(eqx.Module):
    """A square convolution, padded by (kernel_size − 1)/2 on each side.

    - `in_channels`, `out_channels`: before and after
    - `kernel_size`: the side of the kernel, an odd number
    - `stride`: 1 keeps the size, 2 halves it and rounds up
    - `zero`: start the weights at 0 instead of uniform in ±1/sqrt(fan in). The bias always starts at 0.

    **Raises:** `ValueError` if `kernel_size` is even.
    """

    weight: Float[Array, "kernel kernel in_channels out_channels"]
    bias: Float[Array, " out_channels"]
    stride: int = eqx.field(static=True)

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        key: PRNGKey,
        stride: int = 1,
        zero: bool = False,
    ):
        if kernel_size % 2 == 0:
            raise ValueError(
                f"a convolution needs an odd kernel_size, for equal padding; got {kernel_size}"
            )
        bound = 0.0 if zero else (in_channels * kernel_size**2) ** -0.5
        shape = (kernel_size, kernel_size, in_channels, out_channels)
        self.weight = jax.random.uniform(key, shape, minval=-bound, maxval=bound)
        self.bias = jnp.zeros(out_channels)
        self.stride = stride

    def __call__(
        self, x: Float[Array, "batch height width in_channels"]
    ) -> Float[Array, "batch out_height out_width out_channels"]:
        """(B, H, W, in) to (B, ceil(H/stride), ceil(W/stride), out), in the dtype of the weights.

        **Raises:** `TypeError` if `x` has another dtype than the weights.
        """
        check_dtype(x, self.weight)
        kernel_size = self.weight.shape[0]
        if kernel_size == 1 and self.stride == 1:
            return add_bias(x @ self.weight[0, 0], self.bias)
        pad = (kernel_size - 1) // 2
        y = jax.lax.conv_general_dilated(
            x,
            self.weight,
            window_strides=(self.stride, self.stride),
            padding=((pad, pad), (pad, pad)),
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
        return add_bias(y, self.bias)


def upsample_to(
    x: Images, height: int, width: int
) -> Float[Array, "batch {height} {width} channels"]:
    """Repeat each pixel twice along both sides, then cut to (height, width).

    A level of odd size 7 becomes 4 on the way down. On the way up its 8 is cut to 7 again, so images of
    any size pass through any number of levels.
    """
    doubled = jnp.repeat(jnp.repeat(x, 2, axis=1), 2, axis=2)
    return doubled[:, :height, :width]
