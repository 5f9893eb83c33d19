"""The residual block of diffusion U-Nets."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from diffusion_eqx._typing import Keys, PRNGKey
from diffusion_eqx.nn.conv import Conv
from diffusion_eqx.nn.dropout import dropped
from diffusion_eqx.nn.linear import Linear
from diffusion_eqx.nn.norm import GroupNorm


class ResBlock(eqx.Module):
    """x + conv(activation(norm(conv(activation(norm(x)))))), modulated by an embedding.

    The embedding gives scale and shift of the second normalisation (Dhariwal & Nichol 2021, section 3.1).
    The last convolution and the modulation start at zero, so a new block is the identity, or a 1x1
    convolution where the number of channels changes.

    - `in_channels`, `out_channels`: before and after
    - `embedding_dim`: features of the embedding, or None for a block without one
    - `activation`: a function of one array
    - `dropout`: the probability of setting a feature to 0 before the last convolution
    - `norm_groups`: the most groups of a normalisation
    """

    norm1: GroupNorm
    conv1: Conv
    modulation: Linear | None
    norm2: GroupNorm
    dropout: eqx.nn.Dropout
    conv2: Conv
    shortcut: Conv | None

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        embedding_dim: int | None,
        *,
        activation: Callable,
        dropout: float,
        norm_groups: int,
        key: PRNGKey,
    ):
        key1, key2, key_modulation, key_shortcut = jax.random.split(key, 4)
        self.norm1 = GroupNorm(in_channels, max_groups=norm_groups, activation=activation)
        self.conv1 = Conv(in_channels, out_channels, 3, key=key1)
        self.modulation = (
            None
            if embedding_dim is None
            else Linear(embedding_dim, 2 * out_channels, key=key_modulation, zero=True)
        )
        self.norm2 = GroupNorm(out_channels, max_groups=norm_groups, activation=activation)
        self.dropout = eqx.nn.Dropout(dropout)
        self.conv2 = Conv(out_channels, out_channels, 3, key=key2, zero=True)
        self.shortcut = (
            None
            if in_channels == out_channels
            else Conv(in_channels, out_channels, 1, key=key_shortcut)
        )

    def __call__(
        self,
        x: Float[Array, "batch height width in_channels"],
        embedding: Float[Array, "batch dim"] | None = None,
        *,
        key: Keys | None = None,
    ) -> Float[Array, "batch height width out_channels"]:
        """(batch, height, width, in_channels) to (batch, height, width, out_channels).

        - `embedding`: (batch, embedding_dim), already past its nonlinearity
        - `key`: for dropout only

        **Raises:** `RuntimeError` if dropout is active and there is no `key`; `ValueError` if there is an
        embedding and the block was built without one, or the reverse.
        """
        scale = shift = None
        if self.modulation is not None and embedding is not None:
            scale, shift = jnp.split(self.modulation(embedding), 2, axis=-1)
        elif self.modulation is not None or embedding is not None:
            raise ValueError(
                "a residual block takes an embedding exactly if it was built with embedding_dim"
            )
        h = self.conv1(self.norm1(x))
        h = self.norm2(h, scale, shift)
        h = self.conv2(dropped(self.dropout, h, key))
        return h + (x if self.shortcut is None else self.shortcut(x))
