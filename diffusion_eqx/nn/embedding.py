"""Embeddings of time and class, which tell a backbone how noisy and of what its input is."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from diffusion_eqx._typing import Labels, PRNGKey
from diffusion_eqx.nn.linear import Linear


def sinusoidal_features(
    c_noise: Float[Array, " batch"], features: int, max_period: float = 10_000.0
) -> Float[Array, "batch features"]:
    """cos and sin of c_noise · max_period^(−i/half), i = 0 … half − 1 (Vaswani et al. 2017, 3.5)."""
    half = features // 2
    frequencies = jnp.exp(-jnp.log(max_period) * jnp.arange(half) / half)
    phase = c_noise[:, None] * frequencies
    return jnp.concatenate([jnp.cos(phase), jnp.sin(phase)], axis=-1)


class TimeEmbedding(eqx.Module):
    """Sinusoidal features of the noise level through a two-layer perceptron.

    `features` of them, by default as many as `dim`; `max_period` as in `sinusoidal_features`.
    """

    hidden: Linear
    out: Linear
    max_period: float = eqx.field(static=True)

    def __init__(
        self,
        dim: int,
        *,
        features: int | None = None,
        max_period: float = 10_000.0,
        key: PRNGKey,
    ):
        key_hidden, key_out = jax.random.split(key)
        self.hidden = Linear(dim if features is None else features, dim, key=key_hidden)
        self.out = Linear(dim, dim, key=key_out)
        self.max_period = max_period

    def __call__(self, c_noise: Float[Array, " batch"]) -> Float[Array, "batch dim"]:
        """(batch,) to (batch, dim)."""
        features = sinusoidal_features(c_noise, self.hidden.weight.shape[0], self.max_period)
        return self.out(jax.nn.silu(self.hidden(features)))


class ClassEmbedding(eqx.Module):
    """One learned vector for each class and, last, for "no class" (label `num_classes`)."""

    table: Float[Array, "classes_and_null dim"]

    def __init__(self, num_classes: int, dim: int, *, key: PRNGKey):
        # As large as it may be: small vectors are learnt late, and short runs would ignore their labels.
        self.table = jax.random.normal(key, (num_classes + 1, dim))

    def __call__(self, labels: Labels | None, batch: int) -> Float[Array, "batch dim"]:
        """Vectors of `labels`, shape (batch,); None means "no class" for all of the batch."""
        if labels is None:
            return jnp.broadcast_to(self.table[-1], (batch, self.table.shape[1]))
        return self.table[labels]
