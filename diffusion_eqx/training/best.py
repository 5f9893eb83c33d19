"""The model at its best."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from diffusion_eqx.models import read_record, save_model
from diffusion_eqx.training.callback import Callback
from diffusion_eqx.training.devices import writes
from diffusion_eqx.training.run import Run


class Best(Callback):
    """Keeps the averaged model of the report with the best number, `config.best_by`, in a file.

    The file's record says the number and the step. A resumed run writes over it only for a better number.

    - `path`: of the model's file.
    - `record`: makes of the reports what the model's file says of its training.
    """

    optional = True

    def __init__(
        self, path: str | Path, record: Callable[[list[dict[str, float]]], dict[str, Any]]
    ):
        self._path = Path(path)
        self._record = record
        self._best: float | None = None

    def start(self, run: Run) -> None:
        """Look how good the one is that is kept."""
        found = best_of(self._path) or {}
        self._best = found["value"] if found.get("name") == run.config.best_by else None

    def evaluate(self, run: Run, row: dict[str, float]) -> None:
        """Keep the model if it is better than before."""
        name = run.config.best_by
        if name is None or name not in row:
            return
        # All processes take part in gathering the model; the one that writes decides by its own number.
        model = run.model()
        if writes() and self._better(run, row[name]):
            self._best = row[name]
            record = self._record(run.rows)
            record["training"]["best"] = {"name": name, "value": row[name], "step": run.step}
            save_model(self._path, model, record=record)

    def end(self, run: Run) -> None:
        """Say if there never was such a number.

        **Raises:** `ValueError`.
        """
        names = {name for row in run.rows for name in row} - {"step"}
        if run.finished and run.config.best_by not in names:
            raise ValueError(
                f"no report has {run.config.best_by!r}, by which the best model was to be kept; there were "
                f"{', '.join(sorted(names))}"
            )

    def _better(self, run: Run, value: float) -> bool:
        if self._best is None:
            return True
        return value < self._best if run.config.best_is == "least" else value > self._best


def best_of(path: Path) -> dict[str, Any] | None:
    """The `name`, `value` and `step` of the best model that is kept at a path; None if none is."""
    return read_record(path).training.get("best") if path.exists() else None
