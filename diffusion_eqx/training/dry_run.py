"""What a run would take, found before it is started."""

import dataclasses
import time
from typing import Any

import equinox as eqx
import jax

from diffusion_eqx.config import TrainingConfig
from diffusion_eqx.data import Dataset
from diffusion_eqx.training.devices import local_rows, placement
from diffusion_eqx.training.prefetch import read_rows
from diffusion_eqx.training.recipe import Recipe, first_state
from diffusion_eqx.training.state import EMA
from diffusion_eqx.training.step import train_step

_TIMED = 3


@dataclasses.dataclass(frozen=True)
class Costs:
    """What a run takes; `str` of it is a table of lines.

    - `parameters`: numbers that are trained.
    - `state_bytes`, `device_bytes`: of weights, averages and optimiser in all, and on each device.
    - `devices`: over which each batch is split.
    - `batch_shape`: of the examples of one step.
    - `compile_seconds`, `step_seconds`: measured.
    - `steps`, `images_per_second`: of the run.
    """

    parameters: int
    state_bytes: int
    device_bytes: int
    devices: int
    batch_shape: tuple[int, ...]
    compile_seconds: float
    step_seconds: float
    steps: int
    images_per_second: float

    def __str__(self) -> str:
        total = self.compile_seconds + self.steps * self.step_seconds
        return "\n".join(
            [
                f"parameters        {self.parameters:,}",
                f"state             {self.state_bytes / 1e6:.1f} MB, on each of {self.devices} devices "
                f"{self.device_bytes / 1e6:.1f} MB",
                f"batch             {' x '.join(map(str, self.batch_shape))}",
                f"compiling         {self.compile_seconds:.1f} s",
                f"a step            {1e3 * self.step_seconds:.0f} ms, "
                f"{self.images_per_second:.0f} images/s",
                f"{self.steps:,} steps".ljust(18) + f"{total / 60:.1f} min",
            ]
        )


def dry_run(network: Any, data: Dataset, recipe: Recipe, config: TrainingConfig) -> Costs:
    """Compile the step of a run and time a few; nothing is trained or written. Arguments as of `fit`.

    **Raises:** as `fit`, for what is wrong with its arguments.
    """
    where = placement(config.batch_size, parts=config.accumulation, sharded=config.sharded)
    state = first_state(recipe, network, config, where)
    arrays = jax.tree.leaves(eqx.filter(state, eqx.is_inexact_array))
    weights = jax.tree.leaves(eqx.filter(state.averages[EMA], eqx.is_array))
    batches = data.batches(config.batch_size, seed=config.seed)
    batch = read_rows(batches, 0, local_rows(config.batch_size))
    images, labels = where.split((batch["images"], batch.get("labels")))
    held = sum(array.addressable_shards[0].data.nbytes for array in arrays)
    whole = sum(array.nbytes for array in arrays)

    def timed(count: int) -> float:
        nonlocal state
        began = time.perf_counter()
        for _ in range(count):
            state, _ = train_step(recipe, state, images, labels, placement=where)
        state.step.block_until_ready()
        return time.perf_counter() - began

    first = timed(1)
    each = timed(_TIMED) / _TIMED
    return Costs(
        parameters=sum(array.size for array in weights),
        state_bytes=whole,
        device_bytes=held,
        devices=where.devices,
        batch_shape=tuple(images.shape),
        compile_seconds=max(first - each, 0.0),
        step_seconds=each,
        steps=config.steps,
        images_per_second=config.batch_size / each,
    )
