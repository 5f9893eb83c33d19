"""The transformer block of DiT, and a stack of blocks that runs as one loop."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from diffusion_eqx._typing import Keys, PRNGKey
from diffusion_eqx.nn.attention import self_attend
from diffusion_eqx.nn.dropout import dropped
from diffusion_eqx.nn.linear import Linear
from diffusion_eqx.precision import wide
from diffusion_eqx.random_keys import role

Tokens = Float[Array, "batch tokens dim"]
PerFeature = Float[Array, "batch dim"]

_EPSILON = 1e-6


def modulated_norm(x: Tokens, shift: PerFeature, scale: PerFeature) -> Tokens:
    """(x − mean)/std·(1 + scale) + shift, with the mean and std over the features of each token.

    This is the adaLN of Peebles & Xie (2023, section 3.2). It is computed in float32 (in float64 for
    float64); the dtype of `x` stays.

    - `x`: (batch, tokens, dim)
    - `shift`, `scale`: (batch, dim)
    """
    dtype = wide(x.dtype)
    centred = x.astype(dtype)
    centred = centred - centred.mean(-1, keepdims=True)
    rstd = jax.lax.rsqrt(jnp.square(centred).mean(-1, keepdims=True) + _EPSILON)
    factor, offset = 1.0 + scale.astype(dtype)[:, None], shift.astype(dtype)[:, None]
    return (centred * rstd * factor + offset).astype(x.dtype)


class TransformerBlock(eqx.Module):
    """Self-attention and a two-layer perceptron, both modulated and gated by a condition.

        h = x + gate_1·attention(adaLN(x; shift_1, scale_1))
        y = h + gate_2·mlp(adaLN(h; shift_2, scale_2))

    All six come from one linear layer on the condition. It starts at zero, so a new block is the identity
    (adaLN-Zero: Peebles & Xie 2023, section 3.2).

    - `dim`: features of a token and of the condition
    - `heads`: of the attention; divides `dim`
    - `mlp_ratio`: hidden features of the perceptron, as a multiple of `dim`
    - `dropout`: the probability of setting a feature to 0

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
            raise ValueError(
                f"{dim} features cannot be divided into {heads} attention heads; choose a number of "
                "heads that divides them"
            )
        key_modulation, key_qkv, key_out, key_hidden, key_contract = jax.random.split(key, 5)
        inner = int(dim * mlp_ratio)
        self.modulation = Linear(dim, 6 * dim, key=key_modulation, zero=True)
        self.qkv = Linear(dim, 3 * dim, key=key_qkv)
        self.out = Linear(dim, dim, key=key_out)
        self.hidden = Linear(dim, inner, key=key_hidden)
        self.contract = Linear(inner, dim, key=key_contract)
        self.dropout = eqx.nn.Dropout(dropout)
        self.heads = heads

    def __call__(self, x: Tokens, condition: PerFeature, *, key: Keys | None = None) -> Tokens:
        """One block; the shape stays.

        - `x`: (batch, tokens, dim)
        - `condition`: (batch, dim), already past its nonlinearity
        - `key`: for dropout only

        **Raises:** `RuntimeError` if dropout is active and there is no `key`.
        """
        keys = [None if key is None else role(key, number) for number in range(3)]
        modulation = jnp.split(self.modulation(condition), 6, axis=-1)
        shift_1, scale_1, gate_1, shift_2, scale_2, gate_2 = modulation

        h = self.out(self_attend(self.qkv(modulated_norm(x, shift_1, scale_1)), self.heads))
        x = x + gate_1[:, None] * dropped(self.dropout, h, keys[0])

        h = jax.nn.gelu(self.hidden(modulated_norm(x, shift_2, scale_2)), approximate=True)
        h = self.contract(dropped(self.dropout, h, keys[1]))
        return x + gate_2[:, None] * dropped(self.dropout, h, keys[2])


class TransformerStack(eqx.Module):
    """`depth` blocks, run by one `lax.scan`: the time to compile does not grow with the depth.

    Every array of `blocks` has a leading axis of length `depth`.

    - `depth`: number of blocks
    - `dim`, `heads`, `mlp_ratio`, `dropout`: as in `TransformerBlock`

    **Raises:** `ValueError` if `dim` cannot be divided into `heads`.
    """

    blocks: TransformerBlock

    def __init__(
        self,
        depth: int,
        dim: int,
        *,
        heads: int,
        mlp_ratio: float,
        dropout: float = 0.0,
        key: PRNGKey,
    ):
        def block(key: PRNGKey) -> TransformerBlock:
            return TransformerBlock(dim, heads=heads, mlp_ratio=mlp_ratio, dropout=dropout, key=key)

        self.blocks = eqx.filter_vmap(block)(jax.random.split(key, depth))

    def __call__(self, x: Tokens, condition: PerFeature, *, key: Keys | None = None) -> Tokens:
        """One block after the other; the shape stays.

        - `x`: (batch, tokens, dim)
        - `condition`: (batch, dim), already past its nonlinearity
        - `key`: for dropout only; each block draws with a key of its own

        **Raises:** `RuntimeError` if dropout is active and there is no `key`.
        """
        stacked, shared = eqx.partition(self.blocks, eqx.is_array)

        def body(x: Tokens, layer) -> tuple[Tokens, None]:
            number, arrays = layer
            block = eqx.combine(arrays, shared)
            block_key = None if key is None else role(key, number)
            return block(x, condition, key=block_key), None

        depth = jax.tree.leaves(stacked)[0].shape[0]
        return jax.lax.scan(body, x, (jnp.arange(depth), stacked))[0]
