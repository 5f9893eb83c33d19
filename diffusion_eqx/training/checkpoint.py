"""Checkpoints of a run, by orbax: atomic, written in the background, and known to be whole."""

import json
import shutil
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax

from diffusion_eqx.random_keys import to_keys, to_numbers
from diffusion_eqx.training.callback import Callback
from diffusion_eqx.training.devices import copied
from diffusion_eqx.training.digest import digest
from diffusion_eqx.training.run import Run
from diffusion_eqx.training.state import TrainState

# Of those saved every `checkpoint_every` steps so many are always kept: a run that diverges goes back.
_CADENCE_KEPT = 2
# A checkpoint needs its own size, and a second copy while it is moved into place.
_ROOM = 2


class Checkpoint(NamedTuple):
    """What a checkpoint holds.

    - `state`: of the run; `rows`: the reports made up to it.
    - `callbacks`: the states of callbacks, JSON by name.
    """

    state: TrainState
    rows: list[dict[str, float]]
    callbacks: dict[str, Any]


class Checkpoints(Callback):
    """Saves the state and the reports of a run into a folder, every `checkpoint_every` steps and last.

    Each has a digest of its arrays and its reports. One that is torn or damaged is found when it is read,
    set aside as `bad-…`, and the one before it is used. A state after a loss that is not finite is never
    saved, so the checkpoints that are kept are good.

    - `keep`: so many of the newest are kept.
    - `cadence`: steps between two that are saved as planned, and not because the run was stopped; 0: there
      are none. The last two of these are kept anyway.
    """

    optional = True

    def __init__(self, folder: str | Path, *, keep: int = 2, cadence: int = 0):
        self._folder = Path(folder).absolute()
        self._keep, self._cadence = keep, cadence
        self._open()

    def _open(self) -> None:
        import orbax.checkpoint as ocp  # Loading it takes seconds.
        from orbax.checkpoint.checkpoint_managers import preservation_policy as policies

        # What a killed process had begun to write.
        for torn in self._folder.glob("*.orbax-checkpoint-tmp*"):
            shutil.rmtree(torn, ignore_errors=True)
        kept: list[policies.PreservationPolicy] = [policies.LatestN(self._keep)]
        if self._cadence:
            kept.append(policies.EveryNSteps(self._cadence, max_to_keep=_CADENCE_KEPT))
        self._manager = ocp.CheckpointManager(
            self._folder,
            options=ocp.CheckpointManagerOptions(
                preservation_policy=policies.AnyPreservationPolicy(kept), create=True
            ),
        )

    def step(self, run: Run) -> None:
        """Save the state if it is due; report what went wrong with the one before."""
        self._manager.check_for_errors()
        due = run.finished or run.stopping or run.due(run.config.checkpoint_every)
        # A callback may stop the run before `fit` has looked whether it diverged.
        if due and not bool(run._state.halted) and run.step not in self._manager.all_steps():
            self.save(run._state, run.rows, run._callback_states())

    def end(self, run: Run) -> None:
        """Save what is not saved of a run that was stopped, and wait until it is written."""
        # Asked to stop while it waited for data, the run has made no step since.
        if run.stopping and run.step > 0:
            self.step(run)
        self.close()

    def close(self) -> None:
        """Wait until the last checkpoint is written; nothing can be saved or read then."""
        self._manager.close()

    def save(
        self,
        state: TrainState,
        rows: list[dict[str, float]],
        callbacks: dict[str, Any] | None = None,
    ) -> None:
        """Write a state, the reports made so far and the states of callbacks, under the state's step.

        **Raises:** `OSError` if the disk has no room for it, or if a later checkpoint exists.
        """
        import orbax.checkpoint as ocp

        # Written in the background, while the run goes on and reports more.
        record = {"rows": [dict(row) for row in rows], "callbacks": callbacks or {}}
        arrays = _to_arrays(state)
        self._check_room(arrays, "; the run goes on, and saves again when a checkpoint is next due")
        arguments = ocp.args.Composite(
            state=ocp.args.StandardSave(arrays),
            rows=ocp.args.JsonSave({**record, "digest": _digest(arrays, record)}),
        )
        if not self._manager.save(int(state.step), args=arguments):
            raise OSError(
                f"no checkpoint of step {int(state.step)} was written: {self._folder} has a later one, of "
                f"step {self._manager.latest_step()}"
            )

    def check_room(self, state: TrainState) -> None:
        """Refuse to begin a run of which no checkpoint could be written.

        **Raises:** `OSError` if the disk has no room for one.
        """
        self._check_room(_to_arrays(state), ", or choose another folder; nothing was trained")

    def _check_room(self, arrays: list[Any], what_now: str) -> None:
        size = sum(array.nbytes for array in arrays)
        free = shutil.disk_usage(self._folder).free
        if free < _ROOM * size:
            raise OSError(
                f"the disk of {self._folder} has {free / 1e6:.1f} MB free, and a checkpoint needs "
                f"{_ROOM * size / 1e6:.1f} MB while it is written: make room{what_now}"
            )

    def newest(self, like: TrainState, *, cadence: bool = False) -> Checkpoint | None:
        """The newest checkpoint that is whole; None if there is none.

        - `like`: a state of the same structure, on the devices on which the new one is to be.
        - `cadence`: look among those only that were saved as planned.

        **Raises:** `OSError` if there are checkpoints, and none of them is whole.

        **Warns:** `UserWarning` for each one that is not.
        """
        self._manager.wait_until_finished()
        steps = sorted(self._manager.all_steps(), reverse=True)
        if cadence:
            steps = [step for step in steps if self._cadence and step % self._cadence == 0]
        for step in steps:
            try:
                arrays, record = self._read(step, like)
            except Exception as error:
                self._set_aside(step, f"{type(error).__name__}: {error}".splitlines()[0])
                continue
            return Checkpoint(_from_arrays(arrays, like), record["rows"], record["callbacks"])
        if steps:
            raise OSError(
                f"none of the checkpoints in {self._folder} is whole; they are kept there as bad-…. Start "
                "the run anew with overwrite=True, or choose another folder"
            )
        return None

    def _read(self, step: int, like: TrainState) -> tuple[list[Any], dict[str, Any]]:
        import orbax.checkpoint as ocp

        target = jax.tree.map(ocp.utils.to_shape_dtype_struct, _to_arrays(like))
        arguments = ocp.args.Composite(
            state=ocp.args.StandardRestore(target), rows=ocp.args.JsonRestore()
        )
        restored = self._manager.restore(step, args=arguments)
        arrays, record = restored["state"], restored["rows"]
        if record.pop("digest") != _digest(arrays, record):
            raise ValueError("its contents are not those that were written")
        return arrays, record

    def _set_aside(self, step: int, reason: str) -> None:
        place = self._folder / f"bad-{step}"
        shutil.rmtree(place, ignore_errors=True)
        self._manager.close()
        (self._folder / str(step)).rename(place)
        warnings.warn(
            f"the checkpoint of step {step} cannot be used ({reason}); it is set aside as {place}, and the "
            "one before it is tried",
            stacklevel=4,
        )
        self._open()


def _digest(arrays: list[Any], record: dict[str, Any]) -> str:
    return digest(arrays, json.dumps(record, sort_keys=True))


def _to_arrays(state: TrainState) -> list[Any]:
    """The arrays of a state, in order; random keys as their numbers."""
    return jax.tree.leaves(to_numbers(eqx.filter(state, eqx.is_array)))


def _from_arrays(arrays: list[Any], like: TrainState) -> TrainState:
    dynamic, static = eqx.partition(like, eqx.is_array)
    restored = to_keys(jax.tree.unflatten(jax.tree.structure(dynamic), arrays), dynamic)
    # Copies of our own: a buffer that orbax may still hold must not be donated to the next step.
    return eqx.combine(copied(restored), static)
