"""What a run's folder says of the run."""

import dataclasses
import json
from pathlib import Path
from typing import Any

from diffusion_eqx.training import folder as names
from diffusion_eqx.training.best import best_of


@dataclasses.dataclass(frozen=True)
class Summary:
    """How far a run is, and how it goes.

    - `step`, `steps`: steps reported, of how many.
    - `rows`: its reports, their speed included.
    - `checkpoints`: the steps of those that are kept.
    - `best`: the `name`, `value` and `step` of the best model that is kept, or None.
    - `launches`: by what the run was computed each time that it was started.
    - `settings`: what run it is.
    """

    step: int
    steps: int
    rows: list[dict[str, float]]
    checkpoints: list[int]
    best: dict[str, Any] | None
    launches: list[dict[str, Any]]
    settings: dict[str, Any]


def summarize(folder: str | Path) -> Summary:
    """Read the folder of a run, one that is going on too.

    **Raises:** `FileNotFoundError` if no run was started in it.
    """
    folder = Path(folder)
    if not (folder / names.SETTINGS).exists():
        raise FileNotFoundError(
            f"{folder} is no folder of a run, for it has no {names.SETTINGS}; give the one that was --out"
        )
    settings = json.loads((folder / names.SETTINGS).read_text())
    launches = settings.pop(names.LAUNCHES, [])
    rows = _lines(folder / names.LOG)
    for row, timing in zip(rows, _lines(folder / names.TIMINGS), strict=False):
        row |= timing
    saved = folder / names.CHECKPOINTS
    checkpoints = [int(p.name) for p in saved.glob("*") if p.name.isdigit()]
    return Summary(
        step=max([0, *checkpoints, *(int(row["step"]) for row in rows[-1:])]),
        steps=launches[-1]["steps"] if launches else settings["training"]["steps"],
        rows=rows,
        checkpoints=sorted(checkpoints),
        best=best_of(folder / names.BEST),
        launches=launches,
        settings=settings,
    )


def _lines(path: Path) -> list[dict[str, float]]:
    if not path.exists():
        return []
    # The last line of a run that is going on may be half written.
    return [json.loads(line) for line in path.read_text().splitlines(True) if line.endswith("\n")]
