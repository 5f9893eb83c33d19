"""`diffusion-eqx samplers`: what there is to sample with."""

import dataclasses
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from diffusion_eqx.samplers import AbstractSampler


@dataclasses.dataclass(frozen=True, kw_only=True)
class Samplers:
    """List every sampler, grid and guidance, what they are for, and their numbers, which are options."""


def run(options: Samplers) -> None:
    """Print three tables."""
    from rich.console import Console
    from rich.table import Column, Table

    from diffusion_eqx.guidance import GUIDANCE
    from diffusion_eqx.samplers import FAMILIES, GRIDS, SAMPLERS

    console = Console()
    # A name is what one types: it is never cut.
    table = Table(Column("sampler", no_wrap=True), "what it is", "when to use it", "evaluations")
    table.add_column("numbers", overflow="fold")
    table.add_column("reference")
    families = {f"{name}:SOLVER": sampler for name, sampler in FAMILIES.items()}
    for name, sampler in {**SAMPLERS, **families}.items():
        row = (sampler.about, sampler.use, _cost(sampler), _numbers(sampler), sampler.reference)
        table.add_row(name, *row)
    console.print(table)
    grids = Table("grid", "levels")
    for name, grid in GRIDS.items():
        grids.add_row(name, _first_line(grid))
    console.print(grids)
    kinds = Table("guidance", "what it is", "numbers")
    for name, guidance in GUIDANCE.items():
        kinds.add_row(name, _first_line(guidance), _numbers(guidance))
    console.print(kinds)


def _cost(sampler: "AbstractSampler") -> str:
    if sampler.evaluations is None:
        return "as needed" if sampler.chooses_levels else "the solver's"
    return f"{10 * sampler.evaluations - (sampler.evaluations - 1)} for 10 steps"


def _numbers(value: Any) -> str:
    from diffusion_eqx.samplers import numbers

    return ", ".join(f"{name}={number.value:g}" for name, number in numbers(value).items())


def _first_line(value: Any) -> str:
    return (type(value).__doc__ or "").strip().splitlines()[0]
