"""The diffusion transformer of Peebles & Xie (2023)."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from diffusion_eqx._typing import Keys, Labels, PRNGKey
from diffusion_eqx.nn.embedding import ConditionEmbedding
from diffusion_eqx.nn.linear import Linear
from diffusion_eqx.nn.patches import patchify, position_features, unpatchify
from diffusion_eqx.nn.transformer import TransformerStack, modulated_norm

_TIME_FEATURES = 256


class DiT(eqx.Module):
    """A backbone `(x, c_noise, cond) -> output` for images that patches tile.

    Patches become tokens, and fixed features of each patch's place are added. Noise level and class act on
    every block by adaLN-Zero. The last layer, also modulated, turns tokens into patches of the output; it
    starts at zero, and so does the output.

    - `in_channels`, `out_channels`: of the input and the output
    - `patch_size`: the side of a patch, in pixels
    - `dim`: features of a token, a multiple of 4
    - `depth`: number of blocks
    - `heads`: of the attention; divides `dim`
    - `mlp_ratio`: hidden features of a block's perceptron, as a multiple of `dim`
    - `num_classes`: None for a network without classes
    - `dropout`: the probability of setting a feature to 0 inside a block

    **Raises:** `ValueError` if `dim` is no multiple of `heads` and of 4.
    """

    patch_embedding: Linear
    embedding: ConditionEmbedding
    stack: TransformerStack
    modulation_out: Linear
    out: Linear
    patch_size: int = eqx.field(static=True)

    def __init__(
        self,
        *,
        in_channels: int,
        out_channels: int,
        patch_size: int,
        dim: int,
        depth: int,
        heads: int,
        mlp_ratio: float,
        num_classes: int | None,
        dropout: float,
        key: PRNGKey,
    ):
        if dim % 4:
            raise ValueError(f"a transformer needs a dim that 4 divides, for positions; got {dim}")
        key_patch, key_embedding, key_stack, key_modulation, key_out = jax.random.split(key, 5)
        pixels = patch_size**2
        self.patch_embedding = Linear(pixels * in_channels, dim, key=key_patch)
        self.embedding = ConditionEmbedding(
            dim, num_classes=num_classes, features=_TIME_FEATURES, key=key_embedding
        )
        self.stack = TransformerStack(
            depth,
            dim,
            heads=heads,
            mlp_ratio=mlp_ratio,
            dropout=dropout,
            key=key_stack,
        )
        self.modulation_out = Linear(dim, 2 * dim, key=key_modulation, zero=True)
        self.out = Linear(dim, pixels * out_channels, key=key_out, zero=True)
        self.patch_size = patch_size

    def __call__(
        self,
        x: Float[Array, "batch height width in_channels"],
        c_noise: Float[Array, " batch"],
        cond: Labels | None = None,
        *,
        key: Keys | None = None,
    ) -> Float[Array, "batch height width out_channels"]:
        """(batch, height, width, in_channels) to (batch, height, width, out_channels).

        - `x`: noisy images in the dtype of the weights; the output has this dtype too
        - `c_noise`: (batch,), what the network is told of the noise level
        - `cond`: integer labels of shape (batch,), where num_classes means "no class"; None means "no
          class" for the whole batch
        - `key`: for dropout only

        **Raises:** `TypeError` if `x` has another dtype than the weights; `RuntimeError` if dropout is
        active and there is no `key`; `ValueError` if patches do not tile the image, if there are labels
        but no classes, or if the labels are not integers of shape (batch,) in 0 … num_classes.
        """
        condition = jax.nn.silu(self.embedding(c_noise, cond))

        patches = patchify(x, self.patch_size)
        batch, rows, columns, _ = patches.shape
        tokens = self.patch_embedding(patches)
        positions = position_features(rows, columns, tokens.shape[-1], tokens.dtype)
        tokens = tokens + jnp.broadcast_to(positions, tokens.shape)
        tokens = self.stack(tokens.reshape(batch, rows * columns, -1), condition, key=key)

        shift, scale = jnp.split(self.modulation_out(condition), 2, axis=-1)
        output = self.out(modulated_norm(tokens, shift, scale))
        return unpatchify(output.reshape(batch, rows, columns, -1), self.patch_size)
