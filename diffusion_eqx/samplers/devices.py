"""A batch split over devices: the GPUs of a machine, or the cores of its CPU."""

import os
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from diffusion_eqx._values import is_traced

_AXIS = "batch"


def split_over_devices(
    function: Callable[[Any, Any], Any], shared: Any, split: Any, *, axis: int = 0
) -> Any:
    """`function(shared, split)`, compiled, with the examples in `split` divided over all local devices.

    Each device computes its own examples, and nothing passes between them, so results depend on the
    number of devices only by rounding. Numbers of examples that the devices do not divide are
    filled up and cut again.

    - `function`: a module-level function. Whatever of `shared` is no array decides how it is compiled.
    - `split`: arrays whose first axis is that of the examples.
    - `axis`: the axis of the examples in every array that the function returns.

    Where something is being traced already, a surrounding program decides about devices.
    """
    devices = jax.local_devices()
    count = len(jax.tree.leaves(split)[0])
    used = min(len(devices), count)
    if used == 1 or is_traced((shared, split)):
        return _whole(function, shared, split)
    extra = -count % used
    if extra:
        rows = jnp.minimum(jnp.arange(count + extra), count - 1)
        split = jax.tree.map(lambda a: a[rows], split)
    mesh = Mesh(devices[:used], (_AXIS,))
    arrays, static = eqx.partition(shared, eqx.is_array)
    arrays = jax.device_put(arrays, NamedSharding(mesh, PartitionSpec()))
    split = jax.device_put(split, NamedSharding(mesh, PartitionSpec(_AXIS)))
    result = _parts(function, eqx.combine(arrays, static), split, mesh, axis)
    if not extra:
        return result
    return jax.tree.map(lambda a: jax.lax.slice_in_dim(a, 0, count, axis=axis), result)


@eqx.filter_jit
def _whole(function: Callable[[Any, Any], Any], shared: Any, split: Any) -> Any:
    return function(shared, split)


@eqx.filter_jit
def _parts(
    function: Callable[[Any, Any], Any], shared: Any, split: Any, mesh: Mesh, axis: int
) -> Any:
    arrays, static = eqx.partition(shared, eqx.is_array)

    def part(arrays: Any, split: Any) -> Any:
        return function(eqx.combine(arrays, static), split)

    return jax.shard_map(
        part,
        mesh=mesh,
        in_specs=(PartitionSpec(), PartitionSpec(_AXIS)),
        out_specs=PartitionSpec(*(None,) * axis, _AXIS),
        check_vma=False,
    )(arrays, split)


def use_all_cores(cores: int | None = None, *, required: bool = True) -> int:
    """Let jax see the CPU as several devices, over which drawing and training then divide each batch.

    XLA runs much of a program on one core; divided, it uses them all. To be called before jax's
    first computation. Accelerators are not affected.

    - `cores`: how many, by default as many as this process may use.
    - `required`: False leaves the devices as they are if jax has found them already.

    Returns the number of CPU devices.

    **Raises:** `RuntimeError` if jax has found its devices already, unless `required` is False.
    """
    if cores is None:
        found = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else ()
        cores = len(found) or os.cpu_count() or 1
    try:
        jax.config.update("jax_num_cpu_devices", cores)
    except RuntimeError as error:
        if not required:
            return len(jax.devices("cpu"))
        raise RuntimeError(
            "use_all_cores must be called before jax's first computation; call it right after the imports"
        ) from error
    return cores
