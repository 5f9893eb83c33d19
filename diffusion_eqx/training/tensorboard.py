"""The reports of a run for TensorBoard."""

import time
from pathlib import Path
from typing import TYPE_CHECKING

from diffusion_eqx.training.callback import Callback
from diffusion_eqx.training.devices import writes
from diffusion_eqx.training.extras import need
from diffusion_eqx.training.folder import TENSORBOARD
from diffusion_eqx.training.run import Run

if TYPE_CHECKING:
    from tensorboardX import SummaryWriter


class TensorBoard(Callback):
    """Writes each number of each report, and each preview, as events of TensorBoard.

    They are in the folder `tensorboard` of the run; `tensorboard --logdir FOLDER` shows them. What a run
    that goes back had written after its checkpoint is marked as outdated, and TensorBoard drops it.

    - `folder`: another folder for the events; needed by a run without a folder.

    **Raises:** `ModuleNotFoundError` without tensorboardX, which the extra `tensorboard` brings; `start`
    raises `ValueError` if neither the run nor this has a folder.
    """

    optional = True

    _writer: "SummaryWriter | None" = None

    def __init__(self, folder: str | Path | None = None):
        need("tensorboardX", extra="tensorboard")
        self._folder = None if folder is None else Path(folder)

    def start(self, run: Run) -> None:
        """Open a file of events."""
        folder = self._folder or (run.folder and run.folder / TENSORBOARD)
        if folder is None:
            raise ValueError("a run without a folder needs TensorBoard(folder)")
        self.end(run)
        if not writes():
            return
        from tensorboardX import SummaryWriter

        # Two starts in one second would write into one file: its name has no more than the second.
        own = f".{time.time_ns()}"
        self._writer = SummaryWriter(str(folder), purge_step=run.step + 1, filename_suffix=own)

    def step(self, run: Run) -> None:
        """Write the report and the picture of this step, if there are any."""
        if self._writer is None:
            return
        for name, value in (run.report or {}).items():
            if name != "step":
                self._writer.add_scalar(name, value, run.step)
        if run.picture is not None:
            self._writer.add_image("preview", _pixels(run.picture), run.step, dataformats="HWC")
        self._writer.flush()

    def end(self, run: Run) -> None:
        """Close the file."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None


def _pixels(path: Path):
    """A picture as (height, width, 3) bytes."""
    import numpy as np
    from PIL import Image

    return np.asarray(Image.open(path).convert("RGB"))
