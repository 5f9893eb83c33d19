"""Where a run's arrays lie: the state on all devices, a batch split over them."""

import warnings
from collections.abc import Callable
from typing import Any, TypeVar

import equinox as eqx
import jax
from jax.sharding import AxisType, NamedSharding, PartitionSpec

Tree = TypeVar("Tree")


def place(state: Tree, batch_size: int) -> tuple[Tree, Callable[[Any], Any]]:
    """Copy a state to jax's devices, and give the function that splits a batch over them.

    **Warns:** `UserWarning` if the batch does not divide by the number of devices: fewer are used then, as
    many as divide it.
    """
    devices = jax.devices()
    used = next(count for count in range(len(devices), 0, -1) if batch_size % count == 0)
    if used < len(devices):
        warnings.warn(_advice(batch_size, len(devices), used), stacklevel=3)
    mesh = jax.make_mesh((used,), ("batch",), (AxisType.Auto,), devices=devices[:used])
    arrays, rest = eqx.partition(state, eqx.is_array)
    # All arrays, scalars and keys included: one that lies elsewhere makes the second step compile again.
    arrays = jax.device_put(arrays, NamedSharding(mesh, PartitionSpec()))
    split = NamedSharding(mesh, PartitionSpec("batch"))
    return eqx.combine(arrays, rest), lambda batch: jax.device_put(batch, split)


def _advice(batch_size: int, devices: int, used: int) -> str:
    below, above = batch_size // devices * devices, -(-batch_size // devices) * devices
    sizes = f"{below} or {above}" if below else f"{above}"
    return (
        f"batch_size={batch_size} does not divide by the {devices} devices, so training uses {used} of "
        f"them; choose batch_size={sizes} to use all"
    )
