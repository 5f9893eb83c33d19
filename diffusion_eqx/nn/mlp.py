"""A backbone for vectors, such as the points of two-dimensional examples."""

from collections.abc import Callable

import equinox as eqx
import jax
from jaxtyping import Array, Float

from diffusion_eqx._typing import Keys, Labels, PRNGKey
from diffusion_eqx.nn.embedding import ConditionEmbedding
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

    The blocks are residual (He et al. 2016), and each is told the noise level and the class.

    - `features`: of an example
    - `width`: features between the blocks
    - `depth`: number of blocks
    - `embedding_dim`: features of the embedding of noise level and class, an even number
    - `num_classes`: None for a network without classes
    - `activation`: a function of one array

    **Raises:** `ValueError` if `embedding_dim` is odd.
    """

    embedding: ConditionEmbedding
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
        key_embedding, key_in, key_out, key_blocks = jax.random.split(key, 4)
        self.embedding = ConditionEmbedding(
            embedding_dim, num_classes=num_classes, key=key_embedding
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
        key: Keys | None = None,
    ) -> Float[Array, "batch features"]:
        """(batch, features) to (batch, features), in the dtype of the weights.

        - `x`: noisy examples in the dtype of the weights
        - `c_noise`: (batch,), what the network is told of the noise level
        - `cond`: integer labels of shape (batch,), where num_classes means "no class"; None means "no
          class" for the whole batch
        - `key`: not used, since there is no dropout

        **Raises:** `TypeError` if `x` has another dtype than the weights; `ValueError` if there are labels
        but no classes, or the labels are not integers of shape (batch,) in 0 … num_classes.
        """
        embedding = self.activation(self.embedding(c_noise, cond))
        h = self.linear_in(x)
        for block in self.blocks:
            h = block(h, embedding)
        return self.linear_out(self.activation(h))
