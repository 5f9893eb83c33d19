"""A training run, as its callbacks see it."""

import dataclasses
import hashlib
import json
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from diffusion_eqx._typing import PRNGKey
from diffusion_eqx.config import TrainingConfig
from diffusion_eqx.data import Dataset
from diffusion_eqx.random_keys import CALLBACK, role
from diffusion_eqx.training.folder import open_folder
from diffusion_eqx.training.state import TrainState, averaged

# Settings that may change when a run is continued: they do not change what is learnt.
_FREE = ("log_every", "checkpoint_every", "preview_every")


class Run:
    """One run of `fit`: where its files go, and what callbacks may ask of it.

    - `folder`: where checkpoints, log and previews go; None writes no files.
    - `settings`: JSON that says what run it is, beside the training configuration, the data and the size of
      the network. A folder is continued by a run of the same settings only.
    - `assemble`: makes a model of a trained network, for callbacks; None leaves the network as it is.
    - `overwrite`: start anew where the folder holds a run.

    While the run goes on:

    - `config`: the training configuration.
    - `step`: steps done; `rows`: the reports made, those before a resumption included.
    - `stopping`: set it to true to end the run after this step, its state being saved.
    """

    config: TrainingConfig
    # For the library's own callbacks only: the next step reuses its memory.
    _state: TrainState

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
        self._settings = settings or {}
        self._overwrite = overwrite
        self._opened = False

    @property
    def finished(self) -> bool:
        """Whether all steps are done."""
        return self.step == self.config.steps

    def network(self, *, average: bool = True) -> Any:
        """A copy of the network on one device, with its averaged weights or the newest ones.

        There is none before `start`.
        """
        network = averaged(self._state) if average else self._state.network
        arrays, rest = eqx.partition(network, eqx.is_array)
        # Copied first: the next step reuses the memory of the state.
        arrays = jax.device_put(jax.tree.map(jnp.copy, arrays), jax.devices()[0])
        return eqx.combine(arrays, rest)

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
        deleted = open_folder(folder, settings, overwrite=self._overwrite)
        if deleted:
            print(f"deleted the old {', '.join(deleted)} in {folder}", file=sys.stderr)

    def move_to(self, state: TrainState, step: int) -> None:
        """Take the state after `step` steps. `fit` calls it."""
        self._state, self.step = state, step


def describe_training(config: TrainingConfig) -> dict[str, Any]:
    """The settings that decide what is learnt, as JSON."""
    settings = dataclasses.asdict(config)
    return {name: value for name, value in settings.items() if name not in _FREE}


def describe_network(network: Any) -> dict[str, Any]:
    """The class of a network, and the number of its arrays and of the numbers in them, as JSON."""
    arrays = jax.tree.leaves(eqx.filter(network, eqx.is_array))
    return {
        "class": type(network).__name__,
        "arrays": len(arrays),
        "parameters": sum(array.size for array in arrays),
    }


def describe_data(data: Dataset) -> dict[str, Any]:
    """Size, shape and classes of a data set, and a digest of its labels and of some examples, as JSON."""
    digest = hashlib.sha256()
    if data.labels is not None:
        digest.update(np.ascontiguousarray(data.labels, dtype=np.int64).tobytes())
    # A batch of its own, so that other settings of the run do not change the digest.
    images = data.batches(min(64, len(data)), seed=0)[0]["images"]
    digest.update(np.ascontiguousarray(images).tobytes())
    return {
        "examples": len(data),
        "shape": list(data.shape),
        "classes": data.num_classes,
        "digest": digest.hexdigest()[:16],
    }
