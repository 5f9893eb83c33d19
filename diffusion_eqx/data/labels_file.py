"""Classes of pictures that stand in a table, and not in the names of folders."""

import csv
import os
from collections.abc import Sequence
from pathlib import Path

from diffusion_eqx.data.scan import is_picture_name


def read_labels(
    table: Path, root: Path, files: Sequence[Path]
) -> tuple[list[int], tuple[str, ...]]:
    """The number of the class of each file, and the names of the classes, sorted by their bytes.

    - `table`: a CSV file whose first two columns are a path below `root` and the name of a class. A first
      line `file,label` (or such) is left out: its path is none of a file.
    - `files`: the pictures below `root`.

    **Raises:** `FileNotFoundError`; `ValueError` if a line lacks a column, a picture is named twice or not
    at all, or a named one is not there.
    """
    named = _read(table)
    places = {os.fspath(file.relative_to(root)): file for file in files}
    missing = [name for name in named if name not in places]
    if missing:
        raise ValueError(
            f"{table} names {len(missing)} pictures that are not below {root}, such as {missing[0]}"
        )
    # Files that are no pictures by their name may turn out to be none by their content.
    unnamed = [name for name, file in places.items() if name not in named and is_picture_name(file)]
    if unnamed:
        raise ValueError(
            f"{table} does not name {len(unnamed)} pictures below {root}, such as {unnamed[0]}; name each, "
            "or move them away"
        )
    class_names = tuple(sorted(set(named.values()), key=os.fsencode))
    numbers = {name: number for number, name in enumerate(class_names)}
    return [numbers[named[name]] if name in named else 0 for name in places], class_names


def _read(table: Path) -> dict[str, str]:
    named: dict[str, str] = {}
    with open(table, newline="", encoding="utf-8-sig") as file:
        for number, row in enumerate(csv.reader(file), start=1):
            if not row:
                continue
            if len(row) < 2:
                raise ValueError(
                    f"{table}, line {number}: a path and a class are wanted; got {row[0]!r}"
                )
            name, label = os.path.normpath(row[0].strip()), row[1].strip()
            header = number == 1 and not Path(name).suffix
            if header:
                continue
            if name in named:
                raise ValueError(f"{table}, line {number}: {name} is named twice")
            named[name] = label
    return named
