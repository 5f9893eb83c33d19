"""The transformer block of DiT, and many of them run as one loop."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from diffusion_eqx._typing import PRNGKey
from diffusion_eqx.nn.linear import Linear

Tokens = Float[Array, "batch tokens dim"]
PerFeature = Float[Array, "batch dim"]

_EPSILON = 1e-6


def modulated_norm(x: Tokens, shift: PerFeature, scale: PerFeature) -> Tokens:
    """Layer normalisation whose scale and shift come from outside: (x − mean)/std·(1 + scale) + shift.

    The adaLN of Peebles & Xie (2023, section 3.2). `shift` and `scale` are (batch, dim).
    """
    wide = x.astype(jnp.float32)
    mean = wide.mean(-1, keepdims=True)
    rstd = jax.lax.rsqrt(jnp.square(wide - mean).mean(-1, keepdims=True) + _EPSILON)
    normed = ((wide - mean) * rstd).astype(x.dtype)
    return normed * (1.0 + scale[:, None]) + shift[:, None]


def attend(
    q: Float[Array, "batch heads queries head_dim"],
    k: Float[Array, "batch heads keys head_dim"],
    v: Float[Array, "batch heads keys head_dim"],
) -> Float[Array, "batch heads queries head_dim"]:
    """softmax(q kᵀ / sqrt(head_dim)) v (Vaswani et al. 2017, eq. 1), softmax in float32.

    Heads lead, so that both products are plain batched matrix products, which CPUs do faster.
    """
    # Scaling the queries touches fewer numbers than scaling the logits.
    logits = jnp.einsum("bhqd,bhkd->bhqk", q * q.shape[-1] ** -0.5, k)
    weights = jax.nn.softmax(logits.astype(jnp.float32), axis=-1).astype(v.dtype)
    return jnp.einsum("bhqk,bhkd->bhqd", weights, v)


class TransformerBlock(eqx.Module):
    """Self-attention and a two-layer perceptron, both modulated and gated by a condition.

        h = x + gate_1·attention(adaLN(x; shift_1, scale_1))
        y = h + gate_2·mlp(adaLN(h; shift_2, scale_2))

    with all six from one linear map of the condition, which starts at zero, so that a new block is the
    identity (adaLN-Zero: Peebles & Xie 2023, section 3.2).

    **Raises:** `ValueError` if `dim` cannot be divided into `heads`.
    """

    modulation: Linear
    qkv: Linear
    out: Linear
    hidden: Linear
    contract: Linear
    dropout: eqx.nn.Dropout
    heads: int = eqx.field(static=True)

    def __init__(
        self, dim: int, *, heads: int, mlp_ratio: float, dropout: float = 0.0, key: PRNGKey
    ):
        if dim % heads:
            raise ValueError(f"{dim} features cannot be divided into {heads} attention heads")
        key_modulation, key_qkv, key_out, key_hidden, key_contract = jax.random.split(key, 5)
        inner = int(dim * mlp_ratio)
        self.modulation = Linear(dim, 6 * dim, key=key_modulation, zero=True)
        self.qkv = Linear(dim, 3 * dim, key=key_qkv)
        self.out = Linear(dim, dim, key=key_out)
        self.hidden = Linear(dim, inner, key=key_hidden)
        self.contract = Linear(inner, dim, key=key_contract)
        self.dropout = eqx.nn.Dropout(dropout)
        self.heads = heads

    def __call__(self, x: Tokens, condition: PerFeature, *, key: PRNGKey | None = None) -> Tokens:
        """Shapes stay. `condition` has already passed its nonlinearity.

        **Raises:** `RuntimeError` if dropout is active and there is no `key`.
        """
        keys = (None, None, None) if key is None else jax.random.split(key, 3)
        modulation = jnp.split(self.modulation(condition), 6, axis=-1)
        shift_1, scale_1, gate_1, shift_2, scale_2, gate_2 = modulation

        h = self._mixed(modulated_norm(x, shift_1, scale_1))
        x = x + gate_1[:, None] * self.dropout(h, key=keys[0])

        h = jax.nn.gelu(self.hidden(modulated_norm(x, shift_2, scale_2)), approximate=True)
        h = self.contract(self.dropout(h, key=keys[1]))
        return x + gate_2[:, None] * self.dropout(h, key=keys[2])

    def _mixed(self, x: Tokens) -> Tokens:
        batch, tokens, dim = x.shape
        qkv = self.qkv(x).reshape(batch, tokens, 3, self.heads, dim // self.heads)
        q, k, v = qkv.transpose(2, 0, 3, 1, 4)
        mixed = attend(q, k, v).transpose(0, 2, 1, 3)
        return self.out(mixed.reshape(batch, tokens, dim))


class TransformerStack(eqx.Module):
    """`depth` blocks, run by one `lax.scan`: the time to compile does not grow with the depth.

    Every array of `blocks` has a leading axis of length `depth`. With `remat`, the backward pass computes
    each block again instead of keeping what is inside it, for a fraction of the memory.
    """

    blocks: TransformerBlock
    remat: bool = eqx.field(static=True)

    def __init__(
        self,
        depth: int,
        dim: int,
        *,
        heads: int,
        mlp_ratio: float,
        dropout: float = 0.0,
        remat: bool = False,
        key: PRNGKey,
    ):
        def block(key: PRNGKey) -> TransformerBlock:
            return TransformerBlock(dim, heads=heads, mlp_ratio=mlp_ratio, dropout=dropout, key=key)

        self.blocks = eqx.filter_vmap(block)(jax.random.split(key, depth))
        self.remat = remat

    def __call__(self, x: Tokens, condition: PerFeature, *, key: PRNGKey | None = None) -> Tokens:
        """One block after the other; shapes stay, arguments as those of a block."""
        stacked, shared = eqx.partition(self.blocks, eqx.is_array)

        def body(x: Tokens, layer) -> tuple[Tokens, None]:
            number, arrays = layer
            block = eqx.combine(arrays, shared)
            block_key = None if key is None else jax.random.fold_in(key, number)
            return block(x, condition, key=block_key), None

        if self.remat:
            # Inside a scan nothing can be merged across blocks, so nothing needs to be prevented.
            body = jax.checkpoint(body, prevent_cse=False)
        depth = self.blocks.out.bias.shape[0]
        return jax.lax.scan(body, x, (jnp.arange(depth), stacked))[0]
