"""What is said of an option that there is not."""

import dataclasses
import difflib
from collections.abc import Iterator
from typing import Any


def unknown_option(given: str, options: Any) -> ValueError:
    """The error for an argument that no option took; it names the most similar one.

    - `options`: the options of the command, a dataclass, nested ones included.
    """
    name = given.split("=", 1)[0]
    near = _near(name, list(_names(options)))
    hint = f"did you mean {near}? See --help" if near else "see --help"
    return ValueError(f"{name!r} is no option here; {hint}")


def nearest(name: str, names: list[str]) -> str:
    """What is added to a name that there is not: the most similar one that there is, or nothing."""
    near = _near(name, names)
    return f" (did you mean {near}?)" if near else ""


def _near(name: str, names: list[str]) -> str | None:
    return next(iter(difflib.get_close_matches(name, names, n=1, cutoff=0.75)), None)


def _names(options: Any, prefix: str = "--") -> Iterator[str]:
    for field in dataclasses.fields(options):
        name, value = prefix + field.name.replace("_", "-"), getattr(options, field.name)
        if dataclasses.is_dataclass(value):
            yield from _names(value, f"{name}.")
        else:
            yield name
