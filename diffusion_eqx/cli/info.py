"""`diffusion-eqx info`: what a model file holds."""

import dataclasses
from pathlib import Path
from typing import Annotated

import tyro


@dataclasses.dataclass(frozen=True, kw_only=True)
class Info:
    """Show what a model file holds: its configuration, size and training."""

    model: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")]
    """A model file written by `diffusion-eqx train`."""


def run(options: Info) -> None:
    """Print a table."""
    from rich.console import Console
    from rich.table import Table

    from diffusion_eqx.models import load_model

    model, ema, training = load_model(options.model)
    table = Table(show_header=False, title=str(options.model))
    table.add_row("model", type(model).__name__)
    table.add_row("parameters", f"{model.num_parameters:,}")
    table.add_row("weights", "moving average (EMA)" if ema else "as trained, not averaged")
    for section, values in (
        ("config", dataclasses.asdict(model.config)),
        ("training", training),
    ):
        for name, value in values.items():
            table.add_row(f"{section}.{name}", str(value))
    Console().print(table)
