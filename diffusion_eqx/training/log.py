"""The log of a run."""

import json
from pathlib import Path

from diffusion_eqx.training.callback import Callback
from diffusion_eqx.training.devices import writes
from diffusion_eqx.training.run import Run

# What a report says of the machine.
SPEED = "images_per_second"


class Log(Callback):
    """Writes each report of a run to a file, as one line of JSON, and its speed to another.

    The first file does not depend on the machine: a resumed run has the log of one that was never stopped.
    A resumed run writes the file anew: with what it had reported up to its checkpoint, and no more.
    """

    optional = True

    def __init__(self, path: str | Path, timings: str | Path):
        self._path, self._timings = Path(path), Path(timings)

    def start(self, run: Run) -> None:
        """Write what was reported before a resumption."""
        if not writes():
            return
        self._path.parent.mkdir(parents=True, exist_ok=True)
        for path, part in ((self._path, _plain), (self._timings, _timed)):
            path.write_text("".join(json.dumps(part(row)) + "\n" for row in run.rows))

    def evaluate(self, run: Run, row: dict[str, float]) -> None:
        """Write one line to each."""
        if not writes():
            return
        for path, part in ((self._path, _plain), (self._timings, _timed)):
            with open(path, "a") as file:
                print(json.dumps(part(row)), file=file)


def _plain(row: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in row.items() if name != SPEED}


def _timed(row: dict[str, float]) -> dict[str, float]:
    return {name: row[name] for name in ("step", SPEED)}
