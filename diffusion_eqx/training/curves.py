"""The reports of a run as a picture."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

_COLUMNS = 3
_PANEL = (4.0, 2.6)  # Inches.
_FIRST = ("loss", "held_out", "grad_norm")
_TITLES = {
    "loss": "training loss",
    "held_out": "held-out loss",
    "grad_norm": "gradient norm",
    "frechet_distance": "Fréchet distance",
    "images_per_second": "images per second",
}
# Numbers that spread wider than this factor are drawn on a logarithmic scale.
_WIDE = 20.0


def draw_curves(
    rows: Sequence[dict[str, float]], path: str | Path, *, best: dict[str, Any] | None = None
) -> None:
    """Draw each number of the reports over the steps, a panel for each, into a picture file.

    - `rows`: the reports of a run, such as `summarize(folder).rows`.
    - `best`: `name`, `value` and `step` of a point to be marked.

    **Raises:** `ValueError` if there are no reports.
    """
    names = {name for row in rows for name in row} - {"step"}
    if not names:
        raise ValueError("the run has made no report yet, so there is nothing to draw")
    # Its backend is chosen by the figure alone: no window is opened.
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    others = sorted(names - {*_FIRST, "images_per_second"})
    order = [*_FIRST, *others, "images_per_second"]
    shown = [name for name in order if name in names]
    columns = min(_COLUMNS, len(shown))
    lines = math.ceil(len(shown) / columns)
    figure = Figure(figsize=(_PANEL[0] * columns, _PANEL[1] * lines), layout="constrained")
    panels = figure.subplots(lines, columns, squeeze=False, sharex=True).ravel()
    for panel, name in zip(panels, shown, strict=False):
        steps, values = zip(*((r["step"], r[name]) for r in rows if name in r), strict=True)
        panel.plot(steps, values, marker="." if len(steps) < 30 else None)
        if best is not None and best["name"] == name:
            panel.plot(best["step"], best["value"], "o", color="tab:red")
            panel.annotate(
                f"best: {best['value']:.4g} at step {best['step']}",
                (0.97, 0.93),
                xycoords="axes fraction",
                ha="right",
                va="top",
                fontsize="small",
                color="tab:red",
            )
        if min(values) > 0.0 and max(values) > _WIDE * min(values):
            panel.set_yscale("log")
        panel.set_title(_TITLES.get(name, name), fontsize="medium")
        panel.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
        panel.grid(alpha=0.3)
    for panel in panels[len(shown) :]:
        panel.set_visible(False)
    for panel in panels[max(0, len(shown) - columns) : len(shown)]:
        panel.set_xlabel("step")
        panel.tick_params(labelbottom=True)
    figure.savefig(path)
