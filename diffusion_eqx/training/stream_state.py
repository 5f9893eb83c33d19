"""Where a stream of data was after some steps of a run, so that it need not be read again.

A stream of which nothing is known here is read from its start, which gives the same batches. So the file is
written beside the checkpoints and not into them, and a damaged one costs time only.
"""

import json
import logging
from pathlib import Path
from typing import Any

from diffusion_eqx.config import TrainingConfig
from diffusion_eqx.data import Batches, Dataset, ResumableBatches
from diffusion_eqx.training.devices import writes
from diffusion_eqx.training.folder import STREAM, write_whole

_log = logging.getLogger(__name__)
# As many as there are checkpoints.
_KEPT = 2


def open_batches(data: Dataset, config: TrainingConfig, folder: Path | None, step: int) -> Batches:
    """The batches of a run that has made `step` steps, on from where its folder says a stream was."""
    batches = data.batches(config.batch_size, seed=config.seed)
    if folder is None or step == 0 or not isinstance(batches, ResumableBatches):
        return batches
    try:
        near = [state for state in _states(folder / STREAM) if state["batch"] <= step]
        if near:
            batches.restore(near[-1])
        return batches
    # Whatever a foreign library makes of a state that is damaged, or of an older release of it.
    except Exception as error:
        _log.warning(
            "%s cannot be used (%s: %s); the stream is read again from its start",
            folder / STREAM,
            type(error).__name__,
            error,
        )
        return data.batches(config.batch_size, seed=config.seed)


def save_stream_state(folder: Path, state: dict[str, Any]) -> None:
    """Keep a state of `ResumableBatches`, and the one before it. A full disk is reported, no more."""
    if not writes():
        return
    path = folder / STREAM
    try:
        kept = [one for one in _states(path) if one["batch"] < state["batch"]]
    except (ValueError, KeyError, TypeError):  # Damaged, and no longer needed.
        kept = []
    try:
        write_whole(path, json.dumps([*kept, state][-_KEPT:]))
    except OSError as error:
        _log.warning("%s was not written, and a resumption reads the stream again: %s", path, error)


def _states(path: Path) -> list[dict[str, Any]]:
    return json.loads(path.read_text()) if path.exists() else []
