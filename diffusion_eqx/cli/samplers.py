"""`diffusion-eqx samplers`: what there is to sample with."""

import dataclasses


@dataclasses.dataclass(frozen=True, kw_only=True)
class Samplers:
    """List every sampler and every grid of times, with what they are for."""


def run(options: Samplers) -> None:
    """Print two tables."""
    from rich.console import Console
    from rich.table import Table

    from diffusion_eqx.samplers import FAMILIES, GRIDS, SAMPLERS

    console = Console()
    table = Table(
        "sampler", "what it is", "when to use it", "evaluations", "parameters", "reference"
    )
    families = {f"{name}:SOLVER": entry for name, entry in FAMILIES.items()}
    for name, entry in {**SAMPLERS, **families}.items():
        cost = "as needed" if entry.evaluations is None else f"{entry.evaluations(10)} for 10 steps"
        parameters = ", ".join(f"{p}={value:g}" for p, value in entry.parameters.items())
        table.add_row(name, entry.about, entry.use, cost, parameters, entry.reference)
    console.print(table)
    grids = Table("grid", "times")
    for name, make in GRIDS.items():
        grids.add_row(name, (type(make()).__doc__ or "").strip().splitlines()[0])
    console.print(grids)
