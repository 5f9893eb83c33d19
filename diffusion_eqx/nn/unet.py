"""The U-Net of Ho, Jain & Abbeel (2020), with the blocks of Dhariwal & Nichol (2021)."""

import itertools
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from diffusion_eqx._typing import Keys, Labels, PRNGKey
from diffusion_eqx.nn.attention import SpatialSelfAttention
from diffusion_eqx.nn.conv import Conv, upsample_to
from diffusion_eqx.nn.embedding import ConditionEmbedding
from diffusion_eqx.nn.norm import GroupNorm
from diffusion_eqx.nn.resblock import ResBlock
from diffusion_eqx.random_keys import role


class _Block(eqx.Module):
    """A residual block and, at chosen levels, the attention after it."""

    res: ResBlock
    attention: SpatialSelfAttention | None

    def __call__(self, x, embedding, *, key: Keys | None):
        x = self.res(x, embedding, key=key)
        return x if self.attention is None else self.attention(x)


class _Level(eqx.Module):
    """The blocks of one resolution and the convolution that leads to the next, if there is one."""

    blocks: list[_Block]
    resample: Conv | None


class UNet(eqx.Module):
    """A backbone `(x, c_noise, cond) -> output` for images of any size.

    On the way down, each level has `num_res_blocks` residual blocks and a convolution of stride 2, which
    halves the image and rounds up. On the way up, each level has one block more, is fed with what the way
    down left behind, and doubles the image by repeating pixels before a convolution.

    - `in_channels`, `out_channels`: of the input and the output
    - `channels`: of each level, the finest first
    - `num_res_blocks`: of each level on the way down
    - `attention_levels`: which levels attend, 0 being the finest; the middle always attends
    - `embedding_dim`: features of the embedding of noise level and class, an even number
    - `num_classes`: None for a network without classes
    - `activation`: a function of one array
    - `dropout`: the probability of setting a feature to 0 inside a block
    - `head_dim`: features of an attention head
    - `norm_groups`: the most groups of a normalisation

    **Raises:** `ValueError` if `embedding_dim` is odd, or the channels of a level that attends cannot be
    divided into heads.
    """

    embedding: ConditionEmbedding
    conv_in: Conv
    down: list[_Level]
    middle: list[_Block]
    up: list[_Level]
    norm_out: GroupNorm
    conv_out: Conv

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

        self.embedding = ConditionEmbedding(embedding_dim, num_classes=num_classes, key=next(keys))
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

        self.norm_out = GroupNorm(current, max_groups=norm_groups, activation=activation)
        self.conv_out = Conv(current, out_channels, 3, key=next(keys), zero=True)

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
        active and there is no `key`; `ValueError` if there are labels but no classes, or the labels are not
        integers of shape (batch,) in 0 … num_classes.
        """
        embedding = jax.nn.silu(self.embedding(c_noise, cond))
        counter = itertools.count()

        def dropout_key() -> Keys | None:
            return None if key is None else role(key, next(counter))

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
        return self.conv_out(self.norm_out(h))
