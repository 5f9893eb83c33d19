"""diffusers' `DiTTransformer2DModel`, and a `DiT` of the same weights."""

import equinox as eqx
import jax
import jax.numpy as jnp

from diffusion_eqx.nn import DiT, TimeEmbedding
from tests.filled import is_shape
from tests.peer_weights import array, as_linear, fill_randomly

# diffusers spaces the frequencies of time over half − 1 steps; the paper's code, and ours, over half.
PEER_PERIOD = 10_000.0 ** (128 / 127)


def peer_dit(*, size, channels, out_channels, patch_size, dim, depth, heads, num_classes):
    """A transformer of random weights, whose blocks share their embeddings as in published ones."""
    import diffusers
    import torch

    torch.manual_seed(0)
    peer = diffusers.DiTTransformer2DModel(
        num_attention_heads=heads,
        attention_head_dim=dim // heads,
        in_channels=channels,
        out_channels=out_channels,
        num_layers=depth,
        sample_size=size,
        patch_size=patch_size,
        num_embeds_ada_norm=num_classes,
        norm_eps=1e-6,
    ).eval()
    fill_randomly(peer, scale=0.5 * dim**-0.5)
    shared = peer.transformer_blocks[0].norm1.emb.state_dict()
    for block in peer.transformer_blocks:
        block.norm1.emb.load_state_dict(shared)
    return peer


def with_weights_of(peer) -> DiT:
    """Our network of the same shape and weights."""
    config = peer.config
    embedding = peer.transformer_blocks[0].norm1.emb
    dim = config.num_attention_heads * config.attention_head_dim
    # Only its shapes: every array is replaced.
    dit = eqx.filter_eval_shape(
        DiT,
        in_channels=config.in_channels,
        out_channels=peer.out_channels,
        patch_size=config.patch_size,
        dim=dim,
        depth=config.num_layers,
        heads=config.num_attention_heads,
        mlp_ratio=4.0,
        num_classes=config.num_embeds_ada_norm,
        dropout=0.0,
        key=jax.random.key(0),
    )
    time = eqx.filter_eval_shape(
        TimeEmbedding, dim, features=256, max_period=PEER_PERIOD, key=jax.random.key(0)
    )
    linears = embedding.timestep_embedder
    time = eqx.tree_at(
        lambda t: [t.hidden, t.out],
        time,
        [as_linear(time.hidden, linears.linear_1), as_linear(time.out, linears.linear_2)],
    )
    kernel = array(peer.pos_embed.proj.weight).transpose(2, 3, 1, 0).reshape(-1, dim)
    stacked = eqx.filter(dit.stack.blocks, is_shape)
    first = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape[1:], a.dtype), stacked)
    blocks = [as_block(first, block) for block in peer.transformer_blocks]
    stacked = jax.tree.map(lambda *arrays: jnp.stack(arrays), *blocks)
    return eqx.tree_at(
        lambda d: [
            d.patch_embedding.weight,
            d.patch_embedding.bias,
            d.embedding.time,
            d.embedding.classes.table,
            d.stack.blocks,
            d.modulation_out,
            d.out,
        ],
        dit,
        [
            kernel,
            array(peer.pos_embed.proj.bias),
            time,
            array(embedding.class_embedder.embedding_table.weight),
            eqx.combine(stacked, dit.stack.blocks),
            as_linear(dit.modulation_out, peer.proj_out_1),
            as_linear(dit.out, peer.proj_out_2),
        ],
    )


def as_block(block, peer):
    return eqx.tree_at(
        lambda b: [b.modulation, b.qkv, b.out, b.hidden, b.contract],
        block,
        [
            as_linear(block.modulation, peer.norm1.linear),
            as_linear(block.qkv, peer.attn1.to_q, peer.attn1.to_k, peer.attn1.to_v),
            as_linear(block.out, peer.attn1.to_out[0]),
            as_linear(block.hidden, peer.ff.net[0].proj),
            as_linear(block.contract, peer.ff.net[2]),
        ],
    )
