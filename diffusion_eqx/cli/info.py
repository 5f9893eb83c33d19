"""`diffusion-eqx info`: what a model file or the folder of a run holds."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

if TYPE_CHECKING:
    from rich.table import Table


@dataclasses.dataclass(frozen=True, kw_only=True)
class Info:
    """Show what a model file holds: its configuration, size and training; or how far a run is.

    Of a run it also draws loss, gradient norm and all metrics over the steps, into a picture.
    """

    model: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL|FOLDER")]
    """A model file, as `diffusion-eqx train` writes it; or the folder of a run."""
    curves: Annotated[Path | None, tyro.conf.arg(metavar="FILE.png")] = None
    """Where to draw the curves of a run; by default curves.png in its folder."""


def run(options: Info) -> None:
    """Print a table."""
    from rich.console import Console

    if options.model.is_dir():
        table = _of_run(options.model, options.curves or options.model / "curves.png")
    elif options.curves is not None:
        raise ValueError(f"--curves is for the folder of a run, and {options.model} is none")
    else:
        table = _of_model(options.model)
    Console().print(table)


def _of_model(path: Path) -> "Table":
    from rich.table import Table

    from diffusion_eqx.models import load_model, read_record

    model, record = load_model(path), read_record(path)
    table = Table(show_header=False, title=str(path))
    table.add_row("model", record.model)
    table.add_row("parameters", f"{model.num_parameters:,}")
    table.add_row("weights", "moving average (EMA)" if record.ema else "as trained, not averaged")
    recommended = model.config.recommended
    steps = "all timesteps" if recommended.steps is None else f"{recommended.steps} steps"
    table.add_row("sampler", f"{recommended.name}, {steps}")
    for section, values in (
        ("config", dataclasses.asdict(model.config)),
        ("training", record.training),
    ):
        for name, value in values.items():
            table.add_row(f"{section}.{name}", str(value))
    return table


def _of_run(folder: Path, curves: Path) -> "Table":
    from rich.table import Table

    from diffusion_eqx.training import draw_curves, summarize

    found = summarize(folder)
    table = Table(show_header=False, title=str(folder))
    network = found.settings["network"]
    table.add_row("network", f"{network['class']}, {network['parameters']:,} parameters")
    table.add_row("steps", f"{found.step} of {found.steps}")
    for name, value in (found.rows or [{}])[-1].items():
        if name != "step":
            table.add_row(f"last {name}", f"{value:.4g}")
    if found.best is not None:
        best = found.best
        table.add_row(f"best {best['name']}", f"{best['value']:.4g} at step {best['step']}")
    table.add_row("checkpoints", ", ".join(map(str, found.checkpoints)) or "none")
    for number, launch in enumerate(found.launches, 1):
        devices = ", ".join(f"{count} {kind}" for kind, count in launch["devices"].items())
        jax = launch["versions"]["jax"]
        end = launch.get("end", "running, or ended without a word")
        table.add_row(f"start {number}", f"{launch['time']}, {devices}, jax {jax}; {end}")
    if found.rows:
        curves.parent.mkdir(parents=True, exist_ok=True)
        draw_curves(found.rows, curves, best=found.best)
        table.add_row("curves", str(curves))
    return table
