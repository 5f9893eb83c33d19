"""Which arrays of a network are trained, and which of these decay: decided by the layer that owns them."""

from typing import Any, NamedTuple, TypeVar

import equinox as eqx
import jax

from diffusion_eqx.nn import Conv, Linear
from diffusion_eqx.parameterizations import AbstractParameterization
from diffusion_eqx.schedules import AbstractSchedule

Tree = TypeVar("Tree")

# Layers whose `weight` is a matrix or a convolution kernel.
_MATRIX_LAYERS = (Linear, Conv, eqx.nn.Linear, eqx.nn.Conv, eqx.nn.ConvTranspose)

# What a denoiser holds beside its network: given, not learnt.
_GIVEN = (AbstractSchedule, AbstractParameterization)


def trainable(network: Any) -> Any:
    """A PyTree of the network's structure: True for each floating-point array that is trained.

    Whole denoisers may be trained too: the arrays of their schedule and parameterization are left alone.
    """

    def mark(node: Any) -> Any:
        if isinstance(node, _GIVEN):
            return jax.tree.map(lambda _: False, node)
        return eqx.is_inexact_array(node)

    return jax.tree.map(mark, network, is_leaf=lambda node: isinstance(node, _GIVEN))


class MatrixAxes(NamedTuple):
    """The axes of a matrix or kernel: those that its product sums over, and that of what it gives."""

    summed: tuple[int, ...]
    given: int


def is_axes(node: Any) -> bool:
    """Whether a node of `matrix_axes` is what it says of one array."""
    return node is None or isinstance(node, MatrixAxes)


def matrix_axes(parameters: Any) -> Any:
    """A PyTree of the parameters' structure: the `MatrixAxes` of each matrix and kernel, None for others.

    A matrix is known by its layer, as in `decayed`. Axes that a stack of layers gives in front are neither.
    """

    def mark(node: Any) -> Any:
        marks = jax.tree.map(lambda _: None, node)
        if isinstance(node, _MATRIX_LAYERS) and node.weight is not None:
            return eqx.tree_at(
                lambda layer: layer.weight, marks, _axes_of(node), is_leaf=lambda leaf: leaf is None
            )
        return marks

    return jax.tree.map(mark, parameters, is_leaf=lambda node: isinstance(node, _MATRIX_LAYERS))


def _axes_of(layer: Any) -> MatrixAxes:
    axes = layer.weight.ndim
    if isinstance(layer, Linear):
        return MatrixAxes((axes - 2,), axes - 1)
    if isinstance(layer, Conv):
        return MatrixAxes((axes - 4, axes - 3, axes - 2), axes - 1)
    # Equinox puts the outputs before the inputs.
    own = 2 if isinstance(layer, eqx.nn.Linear) else 2 + layer.num_spatial_dims
    first = axes - own
    return MatrixAxes(tuple(range(first + 1, axes)), first)


def decayed(parameters: Any) -> Any:
    """A PyTree of the parameters' structure: True for each array that weight decay acts on.

    These are the `weight` of linear layers and convolutions, of this library or of Equinox, stacked ones
    included: a matrix is known by its layer, since a stack gives biases and norms another axis too. Biases,
    scales and shifts of norms, embedding tables and arrays of other layers do not decay.
    """

    def mark(node: Any) -> Any:
        marks = jax.tree.map(lambda _: False, node)
        if isinstance(node, _MATRIX_LAYERS) and node.weight is not None:
            return eqx.tree_at(lambda layer: layer.weight, marks, True)
        return marks

    return jax.tree.map(mark, parameters, is_leaf=lambda node: isinstance(node, _MATRIX_LAYERS))
