"""A whole training run: batches, steps, reports, callbacks."""

import dataclasses
import time
import warnings
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from diffusion_eqx.config import TrainingConfig
from diffusion_eqx.data import Dataset
from diffusion_eqx.training import folder
from diffusion_eqx.training.callback import Callback
from diffusion_eqx.training.calls import Calls
from diffusion_eqx.training.devices import Placement, local_rows, on_one_device, placement
from diffusion_eqx.training.prefetch import ReadAhead
from diffusion_eqx.training.recipe import Recipe, first_state
from diffusion_eqx.training.run import Run
from diffusion_eqx.training.signals import preempted, stop_requests
from diffusion_eqx.training.state import Network, TrainState
from diffusion_eqx.training.step import train_step
from diffusion_eqx.training.stream_state import open_batches, save_stream_state

if TYPE_CHECKING:
    from diffusion_eqx.training.checkpoint import Checkpoints


# What a return from divergence multiplies the learning rate by, and when it is given up.
_SLOWER = 0.5
_SLOWEST = 0.1


class TrainingDiverged(ArithmeticError):
    """A step gave a loss, or a gradient, that is not finite."""


class TrainingInterrupted(KeyboardInterrupt):
    """The run was stopped by a signal; if it has a folder, its state is saved."""


def fit(
    network: Network,
    data: Dataset,
    recipe: Recipe,
    config: TrainingConfig,
    *,
    run: Run | None = None,
    callbacks: Iterable[Callback] = (),
) -> tuple[TrainState[Network], list[dict[str, float]]]:
    """Train any network by any loss, for `config.steps` steps of `config.batch_size` examples.

    - `network`: what the recipe's loss is a function of. It stays as it is.
    - `recipe`: see `make_recipe`, which makes one of `config` and a loss.
    - `run`: its folder, if it has one, receives checkpoints, log and previews; a run of the same settings
      that is there goes on from its newest checkpoint.
    - `callbacks`: see `Callback`.

    Returns the last state and the reports, each with `step`, `loss` (the mean since the report before),
    `grad_norm` and `images_per_second`. Batch i and the random numbers of step i depend on `config.seed`
    and i only, so a resumed run equals one that was never stopped. Each batch is split over jax's devices.

    **Raises:** `TrainingDiverged` at the next report or checkpoint after a loss that is not finite;
    `TrainingInterrupted` after SIGINT or SIGTERM; `OSError` if the folder cannot be written, or has no
    room for a checkpoint; `ResumeError` if the run's folder holds another run;
    `ValueError` if the recipe is planned for another number of steps, or if `config` asks for previews
    without a folder and a model.

    **Warns:** `UserWarning` if not all devices can be used, if a callback of the library fails, or if the
    run goes back after divergence (`on_divergence="return"`).
    """
    run = Run() if run is None else run
    _check(recipe, config, run)
    run.open(network, data, config)
    where = placement(config.batch_size, parts=config.accumulation, sharded=config.sharded)
    state = first_state(recipe, network, config, where)
    built_in, checkpoints = _built_in(run)
    calls = Calls((*_previews(run), *callbacks, *built_in), run)
    run.begin(state, calls.states)
    _go_on(run, checkpoints, calls)
    if checkpoints is not None and not run.finished:
        checkpoints.check_room(run._state)
    try:
        with stop_requests(run.interrupt), calls:
            while not (run.finished or run.stopping):
                try:
                    _train(recipe, data, where, run, calls)
                except TrainingDiverged as error:
                    _go_back(error, run, checkpoints, calls)
    except TrainingDiverged as error:
        run.close(str(error))
        raise
    run.close()
    if run.interrupted and not run.finished:
        saved = "" if run.folder is None else f"; its state is saved in {run.folder}"
        raise TrainingInterrupted(f"the run stopped after step {run.step}{saved}")
    return on_one_device(run._state), run.rows


def _go_on(
    run: Run, checkpoints: "Checkpoints | None", calls: Calls, *, cadence: bool = False
) -> bool:
    """Take what the newest good checkpoint holds, if there is one; of the cadence only, if so wished."""
    found = None if checkpoints is None else checkpoints.newest(run._state, cadence=cadence)
    if found is None:
        return False
    run.rows = found.rows
    calls.restore(found.callbacks)
    run.move_to(found.state, int(found.state.step))
    return True


def _go_back(
    error: TrainingDiverged, run: Run, checkpoints: "Checkpoints | None", calls: Calls
) -> None:
    """After divergence, go on from the newest checkpoint with a smaller learning rate, if that is wished.

    **Raises:** `error` if it is not, if there is no checkpoint, or if the rate is at its least.
    """
    if run.config.on_divergence != "return":
        raise error
    scale = float(run._state.learning_rate_scale) * _SLOWER
    # Where a signal happened to stop the run must not decide what is learnt.
    if scale < _SLOWEST or not _go_on(run, checkpoints, calls, cadence=True):
        raise error
    # Of the state that diverged, not of the checkpoint: a second return lowers the rate further.
    state = run._state
    lowered = jax.device_put(
        np.asarray(scale, state.learning_rate_scale.dtype), state.learning_rate_scale.sharding
    )
    run.move_to(dataclasses.replace(state, learning_rate_scale=lowered), run.step)
    warnings.warn(
        f"{error.args[0].split(' gave ')[0]} diverged; the run goes on from step {run.step} with "
        f"{scale:g} times the learning rate",
        stacklevel=3,
    )
    calls("start")


def _check(recipe: Recipe, config: TrainingConfig, run: Run) -> None:
    if recipe.steps not in (None, config.steps):
        raise ValueError(
            f"the recipe's learning rate is planned for {recipe.steps} steps, but config.steps is "
            f"{config.steps}; make the recipe of the same configuration"
        )
    if config.preview_every > 0 and (run.folder is None or run.assemble is None):
        raise ValueError(
            f"preview_every={config.preview_every} needs a folder for the picture and a model that draws "
            "it; use train with out=, or set preview_every=0"
        )


def _built_in(run: Run) -> tuple[list[Callback], "Checkpoints | None"]:
    """The library's callbacks for a run, and among them the one that keeps its checkpoints."""
    from diffusion_eqx.training.progress import Progress

    if run.folder is None:
        return [Progress()], None
    from diffusion_eqx.training.checkpoint import Checkpoints
    from diffusion_eqx.training.log import Log
    from diffusion_eqx.training.posthoc import Snapshots

    checkpoints = Checkpoints(
        run.folder / folder.CHECKPOINTS,
        keep=run.config.keep_checkpoints,
        cadence=run.config.checkpoint_every,
    )
    log = Log(run.folder / folder.LOG, run.folder / folder.TIMINGS)
    snapshots = []
    if len(run.config.ema_lengths) > 1:
        snapshots = [Snapshots(run.folder / folder.AVERAGES)]
    return [Progress(), log, *snapshots, checkpoints], checkpoints


def _previews(run: Run) -> list[Callback]:
    """What draws pictures, before all other callbacks: these may show them elsewhere."""
    if run.folder is None or run.config.preview_every == 0:
        return []
    from diffusion_eqx.training.preview import Preview

    return [Preview(run.folder / folder.PREVIEW)]


def _train(recipe: Recipe, data: Dataset, where: Placement, run: Run, calls: Calls) -> None:
    config = run.config
    ahead = ReadAhead(
        open_batches(data, config, run.folder, run.step),
        local_rows(config.batch_size),
        first=run.step,
        last=config.steps,
        state_every=config.checkpoint_every if run.folder is not None else 0,
    )
    with ahead:
        _train_on(ahead, recipe, where, run, calls)


def _train_on(ahead: ReadAhead, recipe: Recipe, where: Placement, run: Run, calls: Calls) -> None:
    config = run.config
    timed, began = run.step, time.perf_counter()
    first = run.step + 1
    while not (run.finished or run.stopping):
        batch = ahead.take(lambda: run.stopping)
        if batch is None:
            break
        images, labels = where.split((batch["images"], batch.get("labels")))
        state, metrics = train_step(recipe, run._state, images, labels, placement=where)
        run.move_to(state, run.step + 1)
        if preempted(run.step):
            run.interrupt()
        report = run.finished or run.due(config.log_every)
        if report or run.stopping or _due_for_files(run):
            _stop_if_diverged(run)
        if report:
            now = time.perf_counter()
            row = _report(state, metrics["grad_norm"], run.step)
            row["images_per_second"] = (run.step - timed) * config.batch_size / (now - began)
            run.rows.append(row)
            run.move_to(_without_metrics(state), run.step)
            calls("evaluate", row)
            # Measuring is no training.
            timed, began = run.step, time.perf_counter()
        elif run.step == first:
            # Compiling is no training: the first step's time does not count.
            state.step.block_until_ready()
            timed, began = run.step, time.perf_counter()
        if ahead.state is not None and run.folder is not None:
            save_stream_state(run.folder, ahead.state)
        calls("step")
        calls.raise_failure()
    _stop_if_diverged(run)


def _due_for_files(run: Run) -> bool:
    intervals = (run.config.checkpoint_every, run.config.preview_every)
    return run.folder is not None and any(run.due(every) for every in intervals)


def _stop_if_diverged(run: Run) -> None:
    if not bool(run._state.halted):
        return
    # The state is that of the last good step.
    good = int(run._state.step)
    run.move_to(run._state, good)
    kept = "" if run.folder is None else f"; the checkpoints in {run.folder} are good, but older"
    raise TrainingDiverged(
        f"step {good + 1} gave a loss or a gradient that is not finite{kept}. Lower learning_rate or "
        "max_grad_norm, and check that all examples are finite"
    )


def _report(state: TrainState, norm: Any, step: int) -> dict[str, float]:
    """What is said of the steps since the last report; without a loss if all of them were skipped."""
    applied = int(state.metrics.steps)
    row: dict[str, float] = {"step": step}
    if applied:
        row["loss"] = float(state.metrics.loss) / applied
    row["grad_norm"] = float(norm)
    if state.loss_scale is not None:
        row["loss_scale"] = float(state.loss_scale.value)
        row["skipped"] = int(state.step) - int(state.updates)
    return row


def _without_metrics(state: TrainState) -> TrainState:
    def cleared(array: Any) -> Any:
        # Placed as the sum was, lest the next step compile again.
        return jax.device_put(np.zeros((), array.dtype), array.sharding)

    return dataclasses.replace(state, metrics=jax.tree.map(cleared, state.metrics))
