"""Less memory for gradients: blocks whose inside is computed twice."""

from typing import Any, TypeVar

import equinox as eqx
import jax

from diffusion_eqx.nn.attention import SpatialSelfAttention
from diffusion_eqx.nn.resblock import ResBlock
from diffusion_eqx.nn.transformer import TransformerBlock

Tree = TypeVar("Tree")

_BLOCKS = (ResBlock, SpatialSelfAttention, TransformerBlock)


class Rematerialized(eqx.Module):
    """A block of which the backward pass keeps the input only, and computes the rest anew.

    Chen et al. (2016), "Training deep nets with sublinear memory cost".
    """

    block: Any

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        """What the block gives."""
        return eqx.filter_checkpoint(self.block)(*arguments, **options)


def rematerialized(network: Tree) -> Tree:
    """The same network with each residual, attention and transformer block `Rematerialized`.

    A network without such blocks stays as it is; one of your own may use `Rematerialized` itself.
    """

    def wrap(node: Any) -> Any:
        return Rematerialized(node) if isinstance(node, _BLOCKS) else node

    return jax.tree.map(wrap, network, is_leaf=lambda node: isinstance(node, _BLOCKS))
