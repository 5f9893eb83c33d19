"""The precision of a network: the dtype of its weights, and how float32 code calls it.

A network computes in the dtype of its weights. Schedules, samplers and losses stay in float32 (in
float64 if JAX is set so), because a noise level in bfloat16 would have three digits. `at_edge` is where
the two meet. Source: Micikevicius et al. 2018, "Mixed precision training", section 3.
"""

from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, DTypeLike, Float

from diffusion_eqx._face import face as _face
from diffusion_eqx._typing import Batch, Cond, Keys
from diffusion_eqx.schedules import AbstractSchedule

Tree = TypeVar("Tree")


def cast(tree: Tree, dtype: DTypeLike) -> Tree:
    """The same PyTree with its floating-point arrays in `dtype`: a network in another precision.

    `cast(model, jnp.bfloat16)` halves the memory of the weights. Everything else stays as it is:

    - schedules, which keep the precision of their tables
    - integer, boolean and complex arrays
    - random keys
    - Python numbers and functions

    **Raises:** `ValueError` if `dtype` is not a floating-point type, or is float64 while JAX is not set to
    use it.
    """
    wanted = np.dtype(dtype)
    if not jnp.issubdtype(wanted, jnp.floating):
        raise ValueError(
            f"cast needs a floating-point dtype, such as jnp.bfloat16 or jnp.float32; got {wanted}"
        )
    if wanted == np.float64 and jnp.result_type(float) != np.float64:
        raise ValueError(
            "JAX is not set to use float64; call jax.config.update('jax_enable_x64', True) first"
        )

    def changed(leaf: Any) -> Any:
        return leaf.astype(wanted) if _is_weight(leaf) else leaf

    return jax.tree.map(changed, tree, is_leaf=_is_schedule)


def dtype_of(network: Any) -> np.dtype | None:
    """The dtype that a network computes in, or None if it has no floating-point arrays.

    If its arrays have several dtypes, this is the narrowest dtype that holds them all: float32 for
    bfloat16 beside float32, and also for bfloat16 beside float16. Schedules inside it do not count.
    """
    leaves = jax.tree.leaves(network, is_leaf=_is_schedule)
    dtypes = {leaf.dtype for leaf in leaves if _is_weight(leaf)}
    if not dtypes:
        return None
    # The strict mode of promotion would refuse two dtypes.
    with jax.numpy_dtype_promotion("standard"):
        return np.dtype(jnp.result_type(*dtypes))


def wide(dtype: DTypeLike) -> np.dtype:
    """The dtype for sums, moments and exponentials: float32, or float64 for a `dtype` of float64."""
    return np.dtype(np.float64 if np.dtype(dtype) == np.float64 else np.float32)


def at_edge(
    network: Callable[..., Float[Array, "batch *output"]],
    x: Batch,
    c_noise: Float[Array, " batch"],
    cond: Cond = None,
    *,
    key: Keys | None = None,
) -> Float[Array, "batch *output"]:
    """Call a backbone in its own precision: `network(x, c_noise, cond, key=key)` in the dtype of `x`.

    - `x`: (batch, …), is cast to the network's dtype
    - `c_noise`: (batch,), keeps its precision. The network casts what it computes from it.
    - `cond`: its floating-point arrays are cast, its labels are not
    - the output is cast to the dtype of `x`

    A network without floating-point arrays, such as a function, gets its arguments as they are.
    """
    dtype = dtype_of(network)
    if dtype is None:
        return network(x, c_noise, cond, key=key).astype(x.dtype)
    output = network(x.astype(dtype), c_noise, cast(cond, dtype), key=key)
    return output.astype(x.dtype)


def in_precision_of(
    module: Any, function: Callable[[Batch], Float[Array, "batch *output"]], x: Batch
) -> Float[Array, "batch *output"]:
    """`function(x)` in the precision of `module`, which it belongs to, and the result in that of `x`.

    This is the edge of an autoencoder, as `at_edge` is that of a backbone.
    """
    dtype = dtype_of(module)
    return function(x if dtype is None else x.astype(dtype)).astype(x.dtype)


def _is_schedule(node: Any) -> bool:
    return isinstance(node, AbstractSchedule)


def _is_weight(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array | np.ndarray) and jnp.issubdtype(leaf.dtype, jnp.floating)


__dir__ = _face(globals())
