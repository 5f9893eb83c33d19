"""A training run, as its callbacks see it."""

import json
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

from diffusion_eqx._typing import PRNGKey
from diffusion_eqx.config import TrainingConfig
from diffusion_eqx.data import Dataset
from diffusion_eqx.random_keys import CALLBACK, role
from diffusion_eqx.training.devices import on_one_device, wait_for_all, writes
from diffusion_eqx.training.folder import PREVIEW, add_end, add_launch, open_folder
from diffusion_eqx.training.identity import describe_data, describe_network, describe_training
from diffusion_eqx.training.launch import describe_launch, differences
from diffusion_eqx.training.state import TrainState, averaged


class Run:
    """One run of `fit`: where its files go, and what callbacks may ask of it.

    - `folder`: where checkpoints, log and previews go; None writes no files.
    - `settings`: JSON that says what run it is, beside the training configuration, the data and the network
      as it is at the start. A folder is continued by a run of the same settings only.
    - `assemble`: makes a model of a trained network, for callbacks; None leaves the network as it is.
    - `overwrite`: start anew where the folder holds a run.

    While the run goes on:

    - `config`: the training configuration.
    - `step`: steps done; `rows`: the reports made, those before a resumption included.
    - `stopping`: whether the run ends after this step, its state being saved; set it to true to do so.
    - `reason`: what a callback gave as the reason of it, if one did.
    - `interrupted`: whether a signal asked for it.
    """

    config: TrainingConfig
    # For the library's own callbacks only: the next step reuses its memory.
    _state: TrainState
    # Gives what the callbacks must know to go on.
    _callback_states: Callable[[], dict[str, Any]]

    def __init__(
        self,
        folder: str | Path | None = None,
        *,
        settings: dict[str, Any] | None = None,
        assemble: Callable[[Any], Any] | None = None,
        overwrite: bool = False,
    ):
        self.folder = None if folder is None else Path(folder)
        self.assemble = assemble
        self.step = 0
        self.rows: list[dict[str, float]] = []
        self.stopping = False
        self.reason: str | None = None
        self.interrupted = False
        self._settings = settings or {}
        self._overwrite = overwrite
        self._opened = False

    @property
    def finished(self) -> bool:
        """Whether all steps are done."""
        return self.step >= self.config.steps

    def due(self, every: int) -> bool:
        """Whether it is time for what is done every so many steps (0: never), and after the last one."""
        return every > 0 and (self.finished or self.step % every == 0)

    @property
    def report(self) -> dict[str, float] | None:
        """The report made after this step, with what all callbacks added to it; None if there is none."""
        return self.rows[-1] if self.rows and self.rows[-1]["step"] == self.step else None

    @property
    def picture(self) -> Path | None:
        """The preview that was drawn after this step; None if none was."""
        if self.folder is None or not self.due(self.config.preview_every):
            return None
        path = self.folder / PREVIEW
        return path if path.exists() else None

    def stop(self, reason: str) -> None:
        """End the run after this step, its state being saved. The first reason given is kept."""
        self.stopping = True
        self.reason = self.reason or reason

    def interrupt(self) -> None:
        """End the run after this step, since a signal asks for it."""
        self.stopping = self.interrupted = True

    def network(self, *, average: bool = True) -> Any:
        """A copy of the network on one device, with its averaged weights or the newest ones.

        There is none before `start`.
        """
        return on_one_device(averaged(self._state) if average else self._state.network)

    def model(self, *, average: bool = True) -> Any:
        """What `assemble` makes of a copy of the network; the copy itself without it."""
        network = self.network(average=average)
        return network if self.assemble is None else self.assemble(network)

    def key(self, name: str) -> PRNGKey:
        """A random key for the callback of that name: the same at each step, and no step's own."""
        root = role(jax.random.key(self.config.seed), CALLBACK)
        return jax.random.fold_in(root, zlib.crc32(name.encode()))

    def open(self, network: Any, data: Dataset, config: TrainingConfig) -> None:
        """Open the folder for a run of this network on these data. `fit` calls it, `train` before it.

        **Raises:** `ResumeError` if the folder holds another run; `NotADirectoryError` if it is a file.
        """
        if self._opened:
            return
        self.config = config
        if self.folder is not None:
            self._open_folder(self.folder, network, data)
        self._opened = True

    def _open_folder(self, folder: Path, network: Any, data: Dataset) -> None:
        settings = {
            "training": describe_training(self.config),
            "network": describe_network(network),
            "data": describe_data(data),
            **self._settings,
        }
        # As a file gives them back, where tuples are lists.
        settings = json.loads(json.dumps(settings))
        # One process writes; the others look once it has, and find the same run.
        if not writes():
            wait_for_all("run folder")
        deleted = open_folder(folder, settings, overwrite=self._overwrite and writes())
        if deleted:
            print(f"deleted the old {', '.join(deleted)} in {folder}", file=sys.stderr)
        if not writes():
            return
        launch = describe_launch(network, self.config.steps)
        before = add_launch(folder, launch)
        wait_for_all("run folder")
        if before is not None and (changed := differences(before, launch)):
            print(
                f"since the run in {folder} was last started: {'; '.join(changed)}", file=sys.stderr
            )

    def close(self, diverged: str | None = None) -> None:
        """Note in the folder how the run ended. `fit` calls it.

        - `diverged`: what is said of a divergence, if that is how.
        """
        if self.folder is None or not writes():
            return
        if diverged is not None:
            end = diverged
        elif self.finished:
            end = f"finished after step {self.step}"
        elif self.interrupted:
            end = f"interrupted after step {self.step}"
        else:
            end = f"stopped after step {self.step}: {self.reason or 'by a callback'}"
        add_end(self.folder, end)

    def begin(self, state: TrainState, callback_states: Callable[[], dict[str, Any]]) -> None:
        """Take the first state, and what gives the states of the callbacks. `fit` calls it."""
        self._callback_states = callback_states
        self.move_to(state, 0)

    def move_to(self, state: TrainState, step: int) -> None:
        """Take the state after `step` steps. `fit` calls it."""
        self._state, self.step = state, step
