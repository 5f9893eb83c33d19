"""Labels and class names as every data set here keeps and checks them."""

from collections.abc import Sequence
from typing import Any

import numpy as np


def checked_labels(
    labels: Any, class_names: Sequence[str], count: int
) -> tuple[np.ndarray | None, tuple[str, ...]]:
    """Labels as int32 (count,) or None, and class names as a tuple.

    There may be more names than labels use: a part of a data set may lack a class.

    **Raises:** `ValueError` if labels are not `count` integers from 0 on, if a label has no name, if names
    come without labels, or if names are not different texts.
    """
    if isinstance(class_names, str) or not all(isinstance(name, str) for name in class_names):
        raise ValueError(f"class_names must be a sequence of texts; got {class_names!r}")
    names = tuple(class_names)
    if len(set(names)) < len(names):
        twice = sorted({name for name in names if names.count(name) > 1})
        raise ValueError(f"class_names must all be different; {', '.join(twice)} is there twice")
    if labels is None:
        if names:
            raise ValueError(
                f"class_names has {len(names)} names, but there are no labels; give labels, or no names"
            )
        return None, ()
    found = np.asarray(labels)
    if found.shape != (count,) or not np.issubdtype(found.dtype, np.integer):
        raise ValueError(
            f"labels must be {count} integers, one for each example; got {found.dtype} of shape "
            f"{found.shape}"
        )
    least, greatest = int(found.min()), int(found.max())
    if least < 0:
        raise ValueError(
            f"labels must be 0 or more; label {int(np.argmin(found))} is {least}. Leave such examples "
            "out, or give no labels at all"
        )
    if names and greatest >= len(names):
        raise ValueError(
            f"labels go up to {greatest}, but class_names has only {len(names)} names; give "
            f"{greatest + 1} names"
        )
    return found.astype(np.int32), names


def count_classes(labels: np.ndarray | None, class_names: tuple[str, ...]) -> int | None:
    """The number of names, or without names one more than the largest label; None without labels."""
    if labels is None:
        return None
    return len(class_names) or int(labels.max()) + 1


def describe_classes(labels: np.ndarray | None, class_names: tuple[str, ...]) -> str:
    """What the one-line text of a data set says about its classes."""
    if labels is None:
        return "no labels"
    if not class_names:
        return f"{count_classes(labels, class_names)} classes"
    shown = ", ".join(class_names[:3])
    more = ", …" if len(class_names) > 3 else ""
    return f"{len(class_names)} classes: {shown}{more}"
