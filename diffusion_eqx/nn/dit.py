"""The diffusion transformer of Peebles & Xie (2023)."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from diffusion_eqx._typing import Labels, PRNGKey
from diffusion_eqx.nn.embedding import ClassEmbedding, TimeEmbedding
from diffusion_eqx.nn.linear import Linear
from diffusion_eqx.nn.patches import patchify, position_features, unpatchify
from diffusion_eqx.nn.transformer import TransformerStack, modulated_norm

_TIME_FEATURES = 256


class DiT(eqx.Module):
    """A backbone `(x, c_noise, cond) -> output` for images that `patch_size` divides.

    Patches become tokens, with fixed features of their place added; blocks are conditioned on time and
    class by adaLN-Zero; the last layer, modulated too, turns tokens into patches of the output. That layer
    starts at zero, and so does the output. `cond` is None or integer labels of shape (batch,), where
    `num_classes` means "no class".

    **Raises:** `ValueError` if `dim` cannot be divided into `heads`, or 4 does not divide it.
    """

    patch_embedding: Linear
    time_embedding: TimeEmbedding
    class_embedding: ClassEmbedding | None
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
        remat: bool,
        key: PRNGKey,
    ):
        key_patch, key_time, key_class, key_stack, key_modulation, key_out = jax.random.split(
            key, 6
        )
        pixels = patch_size**2
        self.patch_embedding = Linear(pixels * in_channels, dim, key=key_patch)
        self.time_embedding = TimeEmbedding(dim, features=_TIME_FEATURES, key=key_time)
        self.class_embedding = (
            None if num_classes is None else ClassEmbedding(num_classes, dim, key=key_class)
        )
        self.stack = TransformerStack(
            depth,
            dim,
            heads=heads,
            mlp_ratio=mlp_ratio,
            dropout=dropout,
            remat=remat,
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
        key: PRNGKey | None = None,
    ) -> Float[Array, "batch height width out_channels"]:
        """(B, H, W, in_channels) to (B, H, W, out_channels); `key` is needed for dropout only.

        **Raises:** `ValueError` if patches do not tile the image, or labels are given to a network without
        classes.
        """
        condition = self.time_embedding(c_noise)
        if self.class_embedding is not None:
            condition = condition + self.class_embedding(cond, x.shape[0])
        elif cond is not None:
            raise ValueError(
                "this transformer has no class embedding: build it with num_classes, or pass cond=None"
            )
        condition = jax.nn.silu(condition)

        patches = patchify(x, self.patch_size)
        batch, rows, columns, _ = patches.shape
        tokens = self.patch_embedding(patches)
        tokens = tokens + position_features(rows, columns, tokens.shape[-1]).astype(tokens.dtype)
        tokens = self.stack(tokens.reshape(batch, rows * columns, -1), condition, key=key)

        shift, scale = jnp.split(self.modulation_out(condition), 2, axis=-1)
        output = self.out(modulated_norm(tokens, shift, scale))
        return unpatchify(output.reshape(batch, rows, columns, -1), self.patch_size)
