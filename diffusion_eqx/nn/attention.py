"""Attention: the one function that attends, and self-attention over the pixels of a feature map."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from diffusion_eqx._typing import Images, PRNGKey
from diffusion_eqx.nn.linear import Linear
from diffusion_eqx.nn.norm import GroupNorm
from diffusion_eqx.precision import wide


def attend(
    q: Float[Array, "batch heads queries head_dim"],
    k: Float[Array, "batch heads keys head_dim"],
    v: Float[Array, "batch heads keys head_dim"],
) -> Float[Array, "batch heads queries head_dim"]:
    """softmax(q kᵀ / sqrt(head_dim)) v (Vaswani et al. 2017, eq. 1).

    - `q`: (batch, heads, queries, head_dim)
    - `k`, `v`: (batch, heads, keys, head_dim), in the dtype of `q`

    The softmax is computed in float32 (in float64 for float64). The heads lead, so that both products are
    plain batched matrix products, which CPUs do faster.
    """
    # Scaling the queries touches fewer numbers than scaling the logits, and keeps float16 from overflowing.
    logits = jnp.einsum("bhqd,bhkd->bhqk", q * q.shape[-1] ** -0.5, k)
    weights = jax.nn.softmax(logits.astype(wide(logits.dtype)), axis=-1).astype(v.dtype)
    return jnp.einsum("bhqk,bhkd->bhqd", weights, v)


def self_attend(
    qkv: Float[Array, "batch tokens three_dim"], heads: int
) -> Float[Array, "batch tokens dim"]:
    """Every token attends to all tokens.

    - `qkv`: (batch, tokens, 3·dim), the queries, keys and values of each token, one after the other
    - `heads`: divides dim; each head attends with its own share of the features
    """
    batch, tokens, features = qkv.shape
    dim = features // 3
    q, k, v = qkv.reshape(batch, tokens, 3, heads, dim // heads).transpose(2, 0, 3, 1, 4)
    return attend(q, k, v).transpose(0, 2, 1, 3).reshape(batch, tokens, dim)


class SpatialSelfAttention(eqx.Module):
    """x + W_out · self-attention of the normalised pixels of x (Ho et al. 2020, appendix B).

    - `channels`: of the feature map
    - `head_dim`: features of a head; there are channels / head_dim heads, at least one
    - `norm_groups`: the most groups of the normalisation

    The last layer starts at zero, so a new layer is the identity.

    **Raises:** `ValueError` if the channels cannot be divided into the heads.
    """

    norm: GroupNorm
    qkv: Linear
    out: Linear
    heads: int = eqx.field(static=True)

    def __init__(self, channels: int, *, head_dim: int, norm_groups: int, key: PRNGKey):
        self.heads = max(1, channels // head_dim)
        if channels % self.heads:
            raise ValueError(
                f"{channels} channels cannot be divided into {self.heads} attention heads; choose a "
                "head_dim that divides the channels"
            )
        key_in, key_out = jax.random.split(key)
        self.norm = GroupNorm(channels, max_groups=norm_groups)
        self.qkv = Linear(channels, 3 * channels, key=key_in)
        self.out = Linear(channels, channels, key=key_out, zero=True)

    def __call__(self, x: Images) -> Images:
        """(batch, height, width, channels); the shape stays."""
        batch, height, width, channels = x.shape
        pixels = self.norm(x).reshape(batch, height * width, channels)
        mixed = self_attend(self.qkv(pixels), self.heads)
        return x + self.out(mixed).reshape(x.shape)
