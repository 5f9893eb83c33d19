"""Self-attention over the pixels of a feature map."""

import equinox as eqx
import jax

from diffusion_eqx._typing import Images, PRNGKey
from diffusion_eqx.nn.linear import Linear
from diffusion_eqx.nn.norm import GroupNorm, largest_group_count


class SpatialSelfAttention(eqx.Module):
    """x + W_o · attention(q, k, v) of the normalised pixels (Ho et al. 2020, appendix B).

    `heads` = channels / `head_dim`, at least one. The output projection starts at zero.
    """

    norm: GroupNorm
    qkv: Linear
    out: Linear
    heads: int = eqx.field(static=True)

    def __init__(self, channels: int, *, head_dim: int, norm_groups: int, key: PRNGKey):
        self.heads = max(1, channels // head_dim)
        if channels % self.heads:
            raise ValueError(
                f"{channels} channels cannot be divided into {self.heads} attention heads; choose "
                "head_dim to be a divisor of the channels"
            )
        key_in, key_out = jax.random.split(key)
        self.norm = GroupNorm(channels, largest_group_count(channels, norm_groups), silu=False)
        self.qkv = Linear(channels, 3 * channels, key=key_in)
        self.out = Linear(channels, channels, key=key_out, zero=True)

    def __call__(self, x: Images) -> Images:
        """Shapes stay."""
        batch, height, width, channels = x.shape
        pixels = self.norm(x).reshape(batch, height * width, channels)
        qkv = self.qkv(pixels).reshape(batch, height * width, 3, self.heads, -1)
        mixed = jax.nn.dot_product_attention(qkv[:, :, 0], qkv[:, :, 1], qkv[:, :, 2])
        return x + self.out(mixed.reshape(pixels.shape)).reshape(x.shape)
