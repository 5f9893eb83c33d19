"""Checkpoints of a training run, by orbax: written in the background, atomic, the newest few kept."""

from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp

from diffusion_eqx.random_keys import to_keys, to_numbers
from diffusion_eqx.training.step import TrainState


class ResumeError(ValueError):
    """A run cannot be resumed: no checkpoint, or one of another configuration."""


class Checkpoints:
    """The checkpoints in one folder. `run` (JSON) says what run they belong to.

    Use as a context manager: leaving it waits for the last checkpoint to be written.
    """

    def __init__(self, folder: str | Path, *, run: dict[str, Any], keep: int = 2):
        self._run = run
        self._manager = ocp.CheckpointManager(
            Path(folder).absolute(),
            options=ocp.CheckpointManagerOptions(max_to_keep=keep, create=True),
        )

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *exception: object) -> None:
        self._manager.close()

    def save(self, state: TrainState, history: list[dict[str, float]]) -> None:
        """Write the state, and the metrics logged so far, under the state's step."""
        arguments = ocp.args.Composite(
            state=ocp.args.StandardSave(_to_arrays(state)),
            run=ocp.args.JsonSave(self._run),
            history=ocp.args.JsonSave({"rows": history}),
        )
        self._manager.save(int(state.step), args=arguments)

    def restore(self, like: TrainState) -> tuple[TrainState, list[dict[str, float]]]:
        """The newest state, and the metrics logged up to it. `like`: a state of the same run.

        **Raises:** `ResumeError` if there is none, or its configuration is another one.
        """
        step = self._manager.latest_step()
        if step is None:
            raise ResumeError(
                f"there is no complete checkpoint in {self._manager.directory}; leave out --resume to "
                "start a new run"
            )
        arguments = ocp.args.Composite(run=ocp.args.JsonRestore())
        run = self._manager.restore(step, args=arguments)["run"]
        if run != self._run:
            changed = sorted(
                k for k in self._run.keys() | run.keys() if self._run.get(k) != run.get(k)
            )
            raise ResumeError(
                f"the checkpoint in {self._manager.directory} belongs to another run: "
                + "; ".join(f"{k} was {run.get(k)}, is {self._run.get(k)}" for k in changed)
                + "; resume with the same settings, or start anew elsewhere"
            )
        target = jax.tree.map(ocp.utils.to_shape_dtype_struct, _to_arrays(like))
        arguments = ocp.args.Composite(
            state=ocp.args.StandardRestore(target), history=ocp.args.JsonRestore()
        )
        restored = self._manager.restore(step, args=arguments)
        return _from_arrays(restored["state"], like), restored["history"]["rows"]

    def discard(self) -> None:
        """Delete all checkpoints, for a new run in the same place."""
        for step in self._manager.all_steps():
            self._manager.delete(step)


def _to_arrays(state: TrainState) -> list[jax.Array]:
    """The arrays of a state, in order; random keys as their numbers."""
    return jax.tree.leaves(to_numbers(eqx.filter(state, eqx.is_array)))


def _from_arrays(arrays: list[jax.Array], like: TrainState) -> TrainState:
    dynamic, static = eqx.partition(like, eqx.is_array)
    restored = to_keys(jax.tree.unflatten(jax.tree.structure(dynamic), arrays), dynamic)
    # Copies of our own: a buffer that orbax may still hold must not be donated to the next step.
    return eqx.combine(jax.tree.map(jnp.copy, restored), static)
