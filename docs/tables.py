"""Writes the tables of docs/pages/samplers.md from what the library says of itself: `make docs-figures`.

The tables stand between `<!-- made: NAME -->` and `<!-- end -->`. Nobody edits them by hand, so a page says
of a sampler what its class says.
"""

import re
from collections.abc import Callable, Iterable
from pathlib import Path

import diffusion_eqx as dx

PAGE = Path(__file__).parent / "pages" / "samplers.md"


def samplers() -> str:
    """Every name of the catalogue: the value behind it, its cost and its numbers."""
    rows = [(name, repr(sampler), sampler) for name, sampler in dx.samplers.SAMPLERS.items()]
    rows += [
        (f"{name}:SOLVER", f"{type(family).__name__}(SOLVER)", family)
        for name, family in dx.samplers.FAMILIES.items()
    ]
    cells = [
        (f"`{name}`", f"`{value}`", _evaluations(sampler.evaluations), _names(sampler))
        for name, value, sampler in rows
    ]
    return _table(("name", "value", "evaluations", "numbers"), cells)


def methods() -> str:
    """Every class of the catalogue: what it is, when to use it, and its source."""
    values = (*dx.samplers.SAMPLERS.values(), *dx.samplers.FAMILIES.values())
    kinds = dict.fromkeys(type(value) for value in values)
    rows = [(f"`{kind.__name__}`", kind.about, kind.use, kind.reference) for kind in kinds]
    return _table(("class", "what it is", "when to use it", "source"), rows)


def numbers() -> str:
    """Every declared number of the samplers and guidances of the catalogue."""
    found = {}
    for value in (*dx.samplers.SAMPLERS.values(), *dx.guidance.GUIDANCE.values()):
        for name, number in dx.samplers.numbers(value).items():
            found.setdefault(name, number)
    rows = [
        (
            f"`{name}`",
            number.about,
            f"{number.default:g}",
            "–" if number.neutral is None else f"{number.neutral:g}",
            f"{number.minimum:g} … {number.maximum:g}",
        )
        for name, number in sorted(found.items())
    ]
    return _table(("name", "meaning", "default", "neutral", "range"), rows)


def grids() -> str:
    """Every grid by its name, with the first line of its docstring."""
    rows = [
        (f"`{name}`", f"`{type(grid).__name__}`", _first_line(grid))
        for name, grid in dx.samplers.GRIDS.items()
    ]
    return _table(("name", "class", "levels"), rows)


def guidance() -> str:
    """Every guidance that has a name, with the first line of its docstring."""
    rows = [
        (f"`{name}`", f"`{type(one).__name__}`", _first_line(one))
        for name, one in dx.guidance.GUIDANCE.items()
    ]
    return _table(("name", "class", "what it does"), rows)


TABLES: dict[str, Callable[[], str]] = {
    "samplers": samplers,
    "methods": methods,
    "numbers": numbers,
    "grids": grids,
    "guidance": guidance,
}


def made(text: str) -> str:
    """A page with its tables as the library makes them now."""

    def table(found: re.Match[str]) -> str:
        return f"<!-- made: {found[1]} -->\n{TABLES[found[1]]()}<!-- end -->"

    return re.sub(r"<!-- made: (\w+) -->.*?<!-- end -->", table, text, flags=re.DOTALL)


def _names(value: object) -> str:
    return ", ".join(f"`{name}`" for name in dx.samplers.numbers(value)) or "–"


def _evaluations(each: int | None) -> str:
    return "the solver's" if each is None else "n" if each == 1 else f"{each}n − {each - 1}"


def _first_line(value: object) -> str:
    lines = (type(value).__doc__ or "").strip().splitlines()
    return lines[0].rstrip(".")


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    # A bar within a cell would end the cell.
    return "".join("| " + " | ".join(c.replace("|", "\\|") for c in row) + " |\n" for row in lines)


if __name__ == "__main__":
    PAGE.write_text(made(PAGE.read_text()))
