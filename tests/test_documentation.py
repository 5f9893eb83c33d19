"""The documentation names what there is."""

from pathlib import Path

from diffusion_eqx.samplers import FAMILIES, GRIDS, SAMPLERS

PAGE = (Path(__file__).parents[1] / "docs" / "samplers.md").read_text()


def test_every_sampler_has_its_line():
    for name, entry in {**SAMPLERS, **{f"{n}:SOLVER": e for n, e in FAMILIES.items()}}.items():
        line = next(row for row in PAGE.splitlines() if row.startswith(f"| `{name}` |"))
        for part in (entry.about, entry.use, entry.reference, *entry.parameters):
            assert part in line, (name, part)


def test_every_grid_is_named():
    for name in GRIDS:
        assert f"`{name}`" in PAGE, name
