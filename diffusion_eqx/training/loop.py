"""A whole training run: batches, steps, logs, previews, checkpoints."""

import contextlib
import dataclasses
import json
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from diffusion_eqx.config import DiffusionTrainingConfig
from diffusion_eqx.data import Dataset
from diffusion_eqx.training.checkpoint import Checkpoints
from diffusion_eqx.training.progress import TrainingProgress
from diffusion_eqx.training.step import Network, Recipe, TrainState, averaged, train_step


class TrainingDiverged(ArithmeticError):
    """The loss is no longer a finite number."""


class TrainingInterrupted(KeyboardInterrupt):
    """The run was stopped by a signal, after its state had been saved."""


@dataclasses.dataclass(frozen=True)
class Cadence:
    """How often things happen, in steps. 0 means never."""

    log_every: int = 20
    preview_every: int = 0
    checkpoint_every: int = 200


def fit(
    backbone: Network,
    dataset: Dataset,
    recipe: Recipe,
    config: DiffusionTrainingConfig,
    *,
    cadence: Cadence = Cadence(),
    checkpoints: Checkpoints | None = None,
    resume: bool = False,
    log: Path | None = None,
    preview: Callable[[Network, int], None] | None = None,
) -> tuple[TrainState[Network], list[dict[str, float]]]:
    """Train `backbone`, or any other network that the recipe's loss is of, for `config.steps` steps.

    Batch i and the random numbers of step i are functions of `config.seed` and i, so a run that is
    resumed equals one that was never interrupted. The batch is split over all of jax's devices if it
    can be split evenly. `log`: a file that receives one JSON line for each report. `preview`: called
    with the averaged network and the number of steps done (see `Preview`). Returns the last state
    and the reported metrics (`step`, `loss`: mean since the report before, `grad_norm`,
    `images_per_second`).

    **Raises:** `TrainingDiverged`; `TrainingInterrupted` after SIGINT or SIGTERM, once the state is
    saved; `ResumeError` if `resume` finds nothing to resume.
    """
    state = recipe.init(backbone, key=jax.random.key(config.seed))
    history: list[dict[str, float]] = []
    if checkpoints is not None and resume:
        state, history = checkpoints.restore(state)
    elif checkpoints is not None:
        checkpoints.discard()
    state, place_batch = _place(state, config.batch_size)
    stream = dataset.batches(config.batch_size, seed=config.seed)
    begin = int(state.step)
    pending: list[jax.Array] = []

    with (
        _stop_requests() as stop,
        TrainingProgress(begin=begin, total=config.steps) as progress,
        _open_log(log, history) as log_file,
    ):
        for number in range(begin, config.steps):
            batch = stream[number]
            images, labels = place_batch((batch["images"], batch.get("labels")))
            state, metrics = train_step(recipe, state, images, labels)
            pending.append(metrics["loss"])
            done = number + 1
            last = done == config.steps or bool(stop)

            if last or _due(done, cadence.log_every):
                loss = float(np.mean(jax.device_get(pending)))
                pending.clear()
                if not np.isfinite(loss):
                    raise TrainingDiverged(
                        f"the loss is {loss} after {done} steps; lower learning_rate or "
                        "max_grad_norm, and check that images lie in [-1, 1]"
                    )
                rate = progress.report(done, loss, config.batch_size)
                row = {
                    "step": done,
                    "loss": loss,
                    "grad_norm": float(metrics["grad_norm"]),
                    "images_per_second": rate,
                }
                history.append(row)
                if log_file is not None:
                    print(json.dumps(row), file=log_file, flush=True)
            if preview is not None and _due(done, cadence.preview_every):
                preview(averaged(state), done)
            if checkpoints is not None and (last or _due(done, cadence.checkpoint_every)):
                checkpoints.save(state, history)
            if stop and done < config.steps:
                raise TrainingInterrupted(f"the run stopped after step {done}, its state is saved")
    return state, history


def _due(step: int, every: int) -> bool:
    return every > 0 and step % every == 0


def _place(state: TrainState, batch_size: int):
    """Copy the state to all devices, and give the function that splits a batch over them."""
    devices = jax.devices()
    if batch_size % len(devices):
        devices = devices[:1]
    mesh = jax.make_mesh((len(devices),), ("batch",), (AxisType.Auto,), devices=devices)
    arrays, rest = eqx.partition(state, eqx.is_array)
    arrays = jax.device_put(arrays, NamedSharding(mesh, PartitionSpec()))
    state = eqx.combine(arrays, rest)
    split = NamedSharding(mesh, PartitionSpec("batch"))
    return state, lambda batch: jax.device_put(batch, split)


@contextlib.contextmanager
def _stop_requests() -> Iterator[list[int]]:
    """Collects SIGINT and SIGTERM instead of dying of them, so that the state can be saved first.

    A second signal of the same kind has its usual effect.
    """
    received: list[int] = []
    before: dict[int, Any] = {}

    def note(number: int, frame: object) -> None:
        received.append(number)
        signal.signal(number, before[number])

    try:
        for number in (signal.SIGINT, signal.SIGTERM):
            before[number] = signal.signal(number, note)
    except ValueError:  # Not in the main thread: signals are somebody else's to handle.
        yield received
        return
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _open_log(path: Path | None, history: list[dict[str, float]]):
    """Open the log, rewritten with what a resumed run had reported up to its checkpoint."""
    if path is None:
        yield None
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w") as file:
        file.writelines(json.dumps(row) + "\n" for row in history)
        yield file
