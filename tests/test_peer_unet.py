"""Our U-Net and diffusers' `UNet2DModel` of the same weights give the same output."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion_eqx.nn import ResBlock, SpatialSelfAttention, UNet
from tests.peer_weights import array, as_conv, as_linear, as_norm, fill_randomly

pytestmark = pytest.mark.peer
torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")

WIDTH, CLASSES, HEAD_DIM, GROUPS = 32, 5, 16, 8


def theirs(attention: tuple[bool, ...], layers: int):
    module = diffusers.UNet2DModel(
        in_channels=3,
        out_channels=3,
        block_out_channels=tuple(WIDTH * (i + 1) for i in range(len(attention))),
        down_block_types=tuple("AttnDownBlock2D" if a else "DownBlock2D" for a in attention),
        up_block_types=tuple("AttnUpBlock2D" if a else "UpBlock2D" for a in attention[::-1]),
        layers_per_block=layers,
        # Where ours has one width for features and embedding, theirs has two.
        time_embedding_dim=WIDTH,
        num_class_embeds=CLASSES + 1,
        attention_head_dim=HEAD_DIM,
        norm_num_groups=GROUPS,
        # Without it the middle's attention would have no normalisation.
        attn_norm_num_groups=GROUPS,
        resnet_time_scale_shift="scale_shift",
    ).eval()
    fill_randomly(module)
    return module


def ours(attention: tuple[bool, ...], layers: int) -> UNet:
    # Only its shapes: every array is replaced.
    empty = eqx.filter_eval_shape(
        UNet,
        in_channels=3,
        out_channels=3,
        channels=tuple(WIDTH * (i + 1) for i in range(len(attention))),
        num_res_blocks=layers,
        attention_levels=tuple(i for i, attends in enumerate(attention) if attends),
        embedding_dim=WIDTH,
        num_classes=CLASSES,
        activation=jax.nn.silu,
        dropout=0.0,
        head_dim=HEAD_DIM,
        norm_groups=GROUPS,
        key=jax.random.key(0),
    )
    return eqx.nn.inference_mode(empty)


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
    time, peer_time = unet.embedding.time, peer.time_embedding
    embedding = eqx.tree_at(
        lambda e: [e.time.hidden, e.time.out, e.classes.table],
        unet.embedding,
        [
            as_linear(time.hidden, peer_time.linear_1),
            as_linear(time.out, peer_time.linear_2),
            array(peer.class_embedding.weight),
        ],
    )
    parts = {
        "embedding": embedding,
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
    return eqx.tree_at(lambda u: [getattr(u, name) for name in parts], unet, list(parts.values()))


@pytest.mark.parametrize(
    ("attention", "layers", "size"),
    [((False, True), 1, 8), ((False, True, False), 2, 16), ((True,), 1, 8)],
)
def test_the_same_weights_give_the_same_output(attention, layers, size, getkey):
    peer = theirs(attention, layers)
    unet = with_weights_of(ours(attention, layers), peer)
    x = jax.random.normal(getkey(), (3, size, size, 3))
    timesteps, labels = np.array([0, 17, 250]), np.array([0, 2, CLASSES])
    with torch.no_grad():
        expected = peer(
            torch.tensor(np.asarray(x.transpose(0, 3, 1, 2))),
            torch.tensor(timesteps),
            torch.tensor(labels),
        ).sample.numpy()
    found = eqx.filter_jit(unet)(x, jnp.asarray(timesteps, jnp.float32), jnp.asarray(labels))
    expected = expected.transpose(0, 2, 3, 1)
    assert 0.1 < expected.std() < 10
    np.testing.assert_allclose(found, expected, atol=2e-5, rtol=0)
