"""Where a run's arrays lie: the state whole or in parts on each device, a batch split over all."""

import dataclasses
import warnings
from typing import Any, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from diffusion_eqx.random_keys import to_keys, to_numbers

Tree = TypeVar("Tree")

_AXIS = "batch"
# Smaller arrays are not worth the messages that parts of them cost.
_LEAST_SPLIT = 1024


@dataclasses.dataclass(frozen=True)
class Placement:
    """Devices in a row, over which each batch is split.

    - `mesh`: of one axis.
    - `sharded`: whether each device holds a part of the state only, and not the whole: parameters,
      optimiser and averages are split along their longest axis that divides (Rajbhandari et al. 2020, stage
      3). It costs messages, and saves memory.
    """

    mesh: Mesh
    sharded: bool = False

    @property
    def devices(self) -> int:
        """Their number, those of all processes."""
        return self.mesh.size

    def of_array(self, shape: tuple[int, ...]) -> NamedSharding:
        """How an array of the state is split."""
        spec: list[str | None] = [None] * len(shape)
        if self.sharded and np.prod(shape, dtype=np.int64) >= _LEAST_SPLIT:
            lengths = [size if size % self.devices == 0 else 0 for size in shape]
            if max(lengths) > 0:
                spec[int(np.argmax(lengths))] = _AXIS
        return NamedSharding(self.mesh, PartitionSpec(*spec))

    def place(self, state: Tree) -> Tree:
        """A copy of a state on the devices. Every array is placed, scalars and keys included: one that lay
        elsewhere would make the second step compile again.
        """
        arrays, rest = eqx.partition(state, eqx.is_array)
        if jax.process_count() == 1:
            return eqx.combine(jax.device_put(arrays, self._shardings(arrays)), rest)
        # Keys, and arrays bound to a device of this process, cannot be put on those of others.
        numbers = jax.tree.map(np.asarray, to_numbers(arrays))
        placed = jax.device_put(numbers, self._shardings(numbers))
        return eqx.combine(to_keys(placed, arrays), rest)

    def held(self, state: Tree) -> Tree:
        """Inside a program: the state, bound to be split as `place` did."""
        arrays, rest = eqx.partition(state, eqx.is_array)
        arrays = jax.lax.with_sharding_constraint(arrays, self._shardings(arrays))
        return eqx.combine(arrays, rest)

    def split(self, batch: Any) -> Any:
        """A batch of this process's rows, as its part of the batch of all processes."""
        sharding = NamedSharding(self.mesh, PartitionSpec(_AXIS))

        def put(rows: Any) -> jax.Array:
            if jax.process_count() == 1:
                return jax.device_put(rows, sharding)
            return jax.make_array_from_process_local_data(sharding, np.asarray(rows))

        return jax.tree.map(put, batch)

    def _shardings(self, arrays: Any) -> Any:
        return jax.tree.map(lambda array: self.of_array(array.shape), arrays)


def placement(batch_size: int, *, parts: int = 1, sharded: bool = False) -> Placement:
    """All devices that jax has, of all processes; or as many as divide the batch, if there is one process.

    - `parts`: into which each device's rows are cut for accumulation.

    **Raises:** `ValueError` if the batch does not divide by the devices of several processes.

    **Warns:** `UserWarning` if the batch does not divide by the devices of the one process.
    """
    devices = jax.devices()
    used = next(count for count in range(len(devices), 0, -1) if batch_size % (count * parts) == 0)
    if used < len(devices):
        text = _advice(batch_size, len(devices), parts)
        if jax.process_count() > 1:
            raise ValueError(
                f"{text}; {len(devices)} devices of several processes must all be used"
            )
        warnings.warn(f"{text}; training uses {used} of them", stacklevel=3)
    mesh = jax.make_mesh((used,), (_AXIS,), (AxisType.Auto,), devices=devices[:used])
    return Placement(mesh, sharded)


def writes() -> bool:
    """Whether this process is the one that writes files and speaks to people."""
    return jax.process_index() == 0


def wait_for_all(name: str) -> None:
    """Go on when all processes have come here."""
    if jax.process_count() > 1:
        from jax.experimental import multihost_utils

        multihost_utils.sync_global_devices(name)


def local_rows(batch_size: int) -> slice:
    """The rows of each batch that this process reads: the p-th of P equal parts."""
    each = batch_size // jax.process_count()
    return slice(jax.process_index() * each, (jax.process_index() + 1) * each)


def on_one_device(tree: Tree) -> Tree:
    """A copy of a state, or a part of one, on the first device of this process."""
    arrays, rest = eqx.partition(tree, eqx.is_array)
    if jax.process_count() > 1:
        from jax.experimental import multihost_utils

        copies = to_keys(multihost_utils.process_allgather(to_numbers(arrays), tiled=True), arrays)
    else:
        # Copied first: a device that has a part already would share its memory, which steps reuse.
        copies = copied(arrays)
    return eqx.combine(jax.device_put(copies, jax.local_devices()[0]), rest)


def copied(arrays: Tree) -> Tree:
    """Copies of arrays where they lie, which share no memory with them.

    In one process nothing is compiled for it.
    """

    def copy(array: jax.Array) -> jax.Array:
        if array.is_fully_addressable:
            return jax.device_put(array, array.sharding, may_alias=False)
        return jnp.copy(array)

    return jax.tree.map(copy, arrays)


def _advice(batch_size: int, devices: int, parts: int) -> str:
    unit = devices * parts
    below, above = batch_size // unit * unit, -(-batch_size // unit) * unit
    sizes = f"{below} or {above}" if below else f"{above}"
    cut = "" if parts == 1 else f", each in {parts} parts"
    return (
        f"batch_size={batch_size} does not divide by the {devices} devices{cut}: choose "
        f"batch_size={sizes} to use all"
    )
