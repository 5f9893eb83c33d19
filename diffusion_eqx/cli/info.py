"""`diffusion-eqx info`: what a model file holds."""

import dataclasses
from pathlib import Path
from typing import Annotated

import tyro


@dataclasses.dataclass(frozen=True, kw_only=True)
class Info:
    """Show what a model file holds: its configuration, size and training."""

    model: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")]
    """A model file, as `diffusion-eqx train` writes it."""


def run(options: Info) -> None:
    """Print a table."""
    from rich.console import Console
    from rich.table import Table

    from diffusion_eqx.models import load_model, read_record

    model, record = load_model(options.model), read_record(options.model)
    table = Table(show_header=False, title=str(options.model))
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
    Console().print(table)
