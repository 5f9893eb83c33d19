"""Checkpoints of a run, by orbax: atomic, written in the background, the newest two kept."""

from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from diffusion_eqx.random_keys import to_keys, to_numbers
from diffusion_eqx.training.callback import Callback
from diffusion_eqx.training.run import Run
from diffusion_eqx.training.state import TrainState

_KEPT = 2


class Checkpoints(Callback):
    """Saves the state and the reports of a run into a folder, every `checkpoint_every` steps and last.

    A state after a loss that is not finite is never saved, so the checkpoints that are kept are good.
    """

    optional = True

    def __init__(self, folder: str | Path):
        import orbax.checkpoint as ocp  # Loading it takes seconds.

        self._manager = ocp.CheckpointManager(
            Path(folder).absolute(),
            options=ocp.CheckpointManagerOptions(max_to_keep=_KEPT, create=True),
        )

    def step(self, run: Run) -> None:
        """Save the state if it is due."""
        every = run.config.checkpoint_every
        due = run.finished or run.stopping or (every > 0 and run.step % every == 0)
        # A callback may stop the run before `fit` has looked whether it diverged.
        if due and not bool(run._state.halted) and run.step not in self._manager.all_steps():
            self.save(run._state, run.rows)

    def end(self, run: Run) -> None:
        """Wait until the last checkpoint is written."""
        self.close()

    def close(self) -> None:
        """Wait until the last checkpoint is written; nothing can be saved or restored then."""
        self._manager.close()

    def save(self, state: TrainState, rows: list[dict[str, float]]) -> None:
        """Write a state, and the reports made so far, under the state's step.

        **Raises:** `OSError` if orbax refuses, as it does where a later checkpoint exists.
        """
        import orbax.checkpoint as ocp

        arguments = ocp.args.Composite(
            state=ocp.args.StandardSave(_to_arrays(state)), rows=ocp.args.JsonSave({"rows": rows})
        )
        if not self._manager.save(int(state.step), args=arguments):
            raise OSError(
                f"no checkpoint of step {int(state.step)} was written: {self._manager.directory} has a "
                f"later one, of step {self._manager.latest_step()}"
            )

    def restore(self, like: TrainState) -> tuple[TrainState, list[dict[str, float]]] | None:
        """The newest state, and the reports made up to it; None if there is no checkpoint.

        - `like`: a state of the same structure.
        """
        import orbax.checkpoint as ocp

        step = self._manager.latest_step()
        if step is None:
            return None
        target = jax.tree.map(ocp.utils.to_shape_dtype_struct, _to_arrays(like))
        arguments = ocp.args.Composite(
            state=ocp.args.StandardRestore(target), rows=ocp.args.JsonRestore()
        )
        restored = self._manager.restore(step, args=arguments)
        return _from_arrays(restored["state"], like), restored["rows"]["rows"]


def _to_arrays(state: TrainState) -> list[Any]:
    """The arrays of a state, in order; random keys as their numbers."""
    return jax.tree.leaves(to_numbers(eqx.filter(state, eqx.is_array)))


def _from_arrays(arrays: list[Any], like: TrainState) -> TrainState:
    dynamic, static = eqx.partition(like, eqx.is_array)
    restored = to_keys(jax.tree.unflatten(jax.tree.structure(dynamic), arrays), dynamic)
    # Copies of our own: a buffer that orbax may still hold must not be donated to the next step.
    return eqx.combine(jax.tree.map(jnp.copy, restored), static)
