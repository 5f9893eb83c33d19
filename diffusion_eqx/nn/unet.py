"""The U-Net of Ho, Jain & Abbeel (2020), with the blocks of Dhariwal & Nichol (2021)."""

import itertools
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from diffusion_eqx._typing import Labels, PRNGKey
from diffusion_eqx.nn.attention import SpatialSelfAttention
from diffusion_eqx.nn.conv import Conv, upsample_to
from diffusion_eqx.nn.embedding import ClassEmbedding, TimeEmbedding
from diffusion_eqx.nn.norm import GroupNorm, largest_group_count
from diffusion_eqx.nn.resblock import ResBlock


class _Block(eqx.Module):
    """A residual block and, at chosen levels, the attention after it."""

    res: ResBlock
    attention: SpatialSelfAttention | None

    def __call__(self, x, embedding, *, key: PRNGKey | None):
        x = self.res(x, embedding, key=key)
        return x if self.attention is None else self.attention(x)


class _Level(eqx.Module):
    """The blocks of one resolution and the convolution that leads to the next, if there is one."""

    blocks: list[_Block]
    resample: Conv | None


class UNet(eqx.Module):
    """A backbone `(x, c_noise, cond) -> output` for images of any size.

    Going down, each level has `num_res_blocks` residual blocks and halves the image (rounding up) by a
    convolution of stride 2; going up, one more block each, fed with what the way down left behind, and
    doubling by repetition and a convolution. `cond` is None or integer labels of shape (batch,), where
    `num_classes` means "no class".
    """

    time_embedding: TimeEmbedding
    class_embedding: ClassEmbedding | None
    conv_in: Conv
    down: list[_Level]
    middle: list[_Block]
    up: list[_Level]
    norm_out: GroupNorm
    conv_out: Conv
    activation: Callable | None = eqx.field(static=True)

    def __init__(
        self,
        *,
        in_channels: int,
        out_channels: int,
        channels: tuple[int, ...],
        num_res_blocks: int,
        attention_levels: tuple[int, ...],
        embedding_dim: int,
        num_classes: int | None,
        activation: Callable,
        dropout: float,
        head_dim: int,
        norm_groups: int,
        key: PRNGKey,
    ):
        """`channels`: of each level, the finest first. `attention_levels`: which of them attend (the
        middle always does).
        """
        keys = iter(jax.random.split(key, 8 + len(channels) * (4 * num_res_blocks + 6)))

        def block(inside: int, outside: int, attend: bool) -> _Block:
            res = ResBlock(
                inside,
                outside,
                embedding_dim,
                activation=activation,
                dropout=dropout,
                norm_groups=norm_groups,
                key=next(keys),
            )
            if not attend:
                return _Block(res, None)
            return _Block(
                res,
                SpatialSelfAttention(
                    outside, head_dim=head_dim, norm_groups=norm_groups, key=next(keys)
                ),
            )

        self.time_embedding = TimeEmbedding(embedding_dim, key=next(keys))
        self.class_embedding = (
            None
            if num_classes is None
            else ClassEmbedding(num_classes, embedding_dim, key=next(keys))
        )
        self.conv_in = Conv(in_channels, channels[0], 3, key=next(keys))
        last = len(channels) - 1

        self.down = []
        current = channels[0]
        skips = [current]
        for level, width in enumerate(channels):
            blocks = []
            for _ in range(num_res_blocks):
                blocks.append(block(current, width, level in attention_levels))
                current = width
                skips.append(current)
            resample = None
            if level < last:
                resample = Conv(current, current, 3, stride=2, key=next(keys))
                skips.append(current)
            self.down.append(_Level(blocks, resample))

        self.middle = [block(current, current, True), block(current, current, False)]

        self.up = []
        for level in range(last, -1, -1):
            blocks = []
            for _ in range(num_res_blocks + 1):
                blocks.append(
                    block(current + skips.pop(), channels[level], level in attention_levels)
                )
                current = channels[level]
            resample = Conv(current, current, 3, key=next(keys)) if level > 0 else None
            self.up.append(_Level(blocks, resample))

        fused = activation is jax.nn.silu
        self.activation = None if fused else activation
        self.norm_out = GroupNorm(current, largest_group_count(current, norm_groups), silu=fused)
        self.conv_out = Conv(current, out_channels, 3, key=next(keys), zero=True)

    def __call__(
        self,
        x: Float[Array, "batch height width in_channels"],
        c_noise: Float[Array, " batch"],
        cond: Labels | None = None,
        *,
        key: PRNGKey | None = None,
    ) -> Float[Array, "batch height width out_channels"]:
        """(B, H, W, in_channels) to (B, H, W, out_channels); `key` is needed for dropout only.

        **Raises:** `ValueError` if labels are given to a network without classes.
        """
        embedding = self.time_embedding(c_noise)
        if self.class_embedding is not None:
            embedding = embedding + self.class_embedding(cond, x.shape[0])
        elif cond is not None:
            raise ValueError(
                "this U-Net has no class embedding: build it with num_classes, or pass cond=None"
            )
        embedding = jax.nn.silu(embedding)
        counter = itertools.count()

        def dropout_key() -> PRNGKey | None:
            return None if key is None else jax.random.fold_in(key, next(counter))

        h = self.conv_in(x)
        skips = [h]
        for level in self.down:
            for block in level.blocks:
                h = block(h, embedding, key=dropout_key())
                skips.append(h)
            if level.resample is not None:
                h = level.resample(h)
                skips.append(h)
        for block in self.middle:
            h = block(h, embedding, key=dropout_key())
        for level in self.up:
            for block in level.blocks:
                h = block(jnp.concatenate([h, skips.pop()], axis=-1), embedding, key=dropout_key())
            if level.resample is not None:
                h = level.resample(upsample_to(h, *skips[-1].shape[1:3]))
        h = self.norm_out(h)
        if self.activation is not None:
            h = self.activation(h)
        return self.conv_out(h)
