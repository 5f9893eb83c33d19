"""A backbone for vectors, such as the points of two-dimensional examples."""

from collections.abc import Callable

import equinox as eqx
import jax
from jaxtyping import Array, Float

from diffusion_eqx._typing import Labels, PRNGKey
from diffusion_eqx.nn.embedding import ClassEmbedding, TimeEmbedding
from diffusion_eqx.nn.linear import Linear


class _Block(eqx.Module):
    """h + W2·act(W1·act(h) + W3·embedding); W2 starts at zero."""

    hidden: Linear
    modulation: Linear
    out: Linear
    activation: Callable = eqx.field(static=True)

    def __call__(self, h, embedding):
        inner = self.hidden(self.activation(h)) + self.modulation(embedding)
        return h + self.out(self.activation(inner))


class MLP(eqx.Module):
    """A residual multi-layer perceptron `(x, c_noise, cond) -> output` for examples of shape (features,).

    `depth` blocks of `width` features (He et al. 2016), each told of time and class. `cond` is None or
    integer labels of shape (batch,), where `num_classes` means "no class".
    """

    time_embedding: TimeEmbedding
    class_embedding: ClassEmbedding | None
    linear_in: Linear
    blocks: list[_Block]
    linear_out: Linear
    activation: Callable = eqx.field(static=True)

    def __init__(
        self,
        features: int,
        *,
        width: int = 128,
        depth: int = 3,
        embedding_dim: int = 64,
        num_classes: int | None = None,
        activation: Callable = jax.nn.silu,
        key: PRNGKey,
    ):
        key_time, key_class, key_in, key_out, key_blocks = jax.random.split(key, 5)
        self.time_embedding = TimeEmbedding(embedding_dim, key=key_time)
        self.class_embedding = (
            None
            if num_classes is None
            else ClassEmbedding(num_classes, embedding_dim, key=key_class)
        )
        self.linear_in = Linear(features, width, key=key_in)
        self.blocks = []
        for key_block in jax.random.split(key_blocks, depth):
            key_hidden, key_modulation, key_last = jax.random.split(key_block, 3)
            self.blocks.append(
                _Block(
                    Linear(width, width, key=key_hidden),
                    Linear(embedding_dim, width, key=key_modulation),
                    Linear(width, width, key=key_last, zero=True),
                    activation,
                )
            )
        self.linear_out = Linear(width, features, key=key_out, zero=True)
        self.activation = activation

    def __call__(
        self,
        x: Float[Array, "batch features"],
        c_noise: Float[Array, " batch"],
        cond: Labels | None = None,
        *,
        key: PRNGKey | None = None,
    ) -> Float[Array, "batch features"]:
        """(B, features) to (B, features); `key` is not used, there being no dropout.

        **Raises:** `ValueError` if labels are given to a network without classes.
        """
        embedding = self.time_embedding(c_noise)
        if self.class_embedding is not None:
            embedding = embedding + self.class_embedding(cond, x.shape[0])
        elif cond is not None:
            raise ValueError(
                "this MLP has no class embedding: build it with num_classes, or pass cond=None"
            )
        embedding = self.activation(embedding)
        h = self.linear_in(x)
        for block in self.blocks:
            h = block(h, embedding)
        return self.linear_out(self.activation(h))
