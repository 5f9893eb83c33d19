"""Weights of diffusers' `UNet2DModel` in the layout of our U-Net."""

import equinox as eqx

from diffusion_eqx.nn import ResBlock, SpatialSelfAttention, UNet
from tests.peer_weights import array, as_conv, as_linear, as_norm


def as_resblock(block: ResBlock, peer) -> ResBlock:
    parts = [
        as_norm(block.norm1, peer.norm1),
        as_conv(block.conv1, peer.conv1),
        as_linear(block.modulation, peer.time_emb_proj),
        as_norm(block.norm2, peer.norm2),
        as_conv(block.conv2, peer.conv2),
    ]
    block = eqx.tree_at(lambda b: [b.norm1, b.conv1, b.modulation, b.norm2, b.conv2], block, parts)
    assert (block.shortcut is None) == (peer.conv_shortcut is None)
    if block.shortcut is None:
        return block
    return eqx.tree_at(lambda b: b.shortcut, block, as_conv(block.shortcut, peer.conv_shortcut))


def as_attention(attention: SpatialSelfAttention, peer) -> SpatialSelfAttention:
    assert attention.heads == peer.heads
    parts = [
        as_norm(attention.norm, peer.group_norm),
        as_linear(attention.qkv, peer.to_q, peer.to_k, peer.to_v),
        as_linear(attention.out, peer.to_out[0]),
    ]
    return eqx.tree_at(lambda a: [a.norm, a.qkv, a.out], attention, parts)


def as_block(block, resnet, attention):
    assert (block.attention is None) == (attention is None)
    block = eqx.tree_at(lambda b: b.res, block, as_resblock(block.res, resnet))
    if attention is None:
        return block
    return eqx.tree_at(lambda b: b.attention, block, as_attention(block.attention, attention))


def as_level(level, peer, resamplers):
    attentions = getattr(peer, "attentions", [None] * len(peer.resnets))
    blocks = [as_block(*each) for each in zip(level.blocks, peer.resnets, attentions, strict=True)]
    level = eqx.tree_at(lambda part: part.blocks, level, blocks)
    assert (level.resample is None) == (resamplers is None)
    if resamplers is None:
        return level
    return eqx.tree_at(
        lambda part: part.resample, level, as_conv(level.resample, resamplers[0].conv)
    )


def with_weights_of(unet: UNet, peer) -> UNet:
    """Our U-Net with the weights of a `UNet2DModel` of the same sizes."""
    time, peer_time = unet.embedding.time, peer.time_embedding
    parts = {
        "embedding": eqx.tree_at(
            lambda e: [e.time.hidden, e.time.out],
            unet.embedding,
            [as_linear(time.hidden, peer_time.linear_1), as_linear(time.out, peer_time.linear_2)],
        ),
        "conv_in": as_conv(unet.conv_in, peer.conv_in),
        "down": [
            as_level(level, block, block.downsamplers)
            for level, block in zip(unet.down, peer.down_blocks, strict=True)
        ],
        "middle": [
            as_block(block, resnet, attention)
            for block, resnet, attention in zip(
                unet.middle, peer.mid_block.resnets, [*peer.mid_block.attentions, None], strict=True
            )
        ],
        "up": [
            as_level(level, block, block.upsamplers)
            for level, block in zip(unet.up, peer.up_blocks, strict=True)
        ],
        "norm_out": as_norm(unet.norm_out, peer.conv_norm_out),
        "conv_out": as_conv(unet.conv_out, peer.conv_out),
    }
    assert (unet.embedding.classes is None) == (peer.class_embedding is None)
    if unet.embedding.classes is not None:
        parts["embedding"] = eqx.tree_at(
            lambda e: e.classes.table, parts["embedding"], array(peer.class_embedding.weight)
        )
    return eqx.tree_at(lambda u: [getattr(u, name) for name in parts], unet, list(parts.values()))
