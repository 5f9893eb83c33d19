"""The log of a run."""

import json
from pathlib import Path

from diffusion_eqx.training.callback import Callback
from diffusion_eqx.training.run import Run


class Log(Callback):
    """Writes each report of a run to a file, as one line of JSON.

    A resumed run writes the file anew: with what it had reported up to its checkpoint, and no more.
    """

    optional = True

    def __init__(self, path: str | Path):
        self._path = Path(path)

    def start(self, run: Run) -> None:
        """Write what was reported before a resumption."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._path.write_text("".join(json.dumps(row) + "\n" for row in run.rows))

    def evaluate(self, run: Run, row: dict[str, float]) -> None:
        """Write one line."""
        with open(self._path, "a") as file:
            print(json.dumps(row), file=file)
