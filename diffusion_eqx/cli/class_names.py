"""Classes by their names: which of two models' are the same, and whether data have those of a model."""

from collections.abc import Sequence
from pathlib import Path


def tell_classes(names: Sequence[str], source: Path) -> str | None:
    """What becomes of the classes of a model that begins with another one; None if they are the same."""
    from diffusion_eqx.models import read_record

    known = read_record(source).class_names
    if not (names and known) or tuple(names) == known:
        return None
    kept = [name for name in names if name in known]
    new = [name for name in names if name not in known]
    parts = [f"{', '.join(kept)} known"] if kept else []
    if new:
        parts.append(f"{', '.join(new)} new")
    return "classes: " + "; ".join(parts)


def check_class_names(names: Sequence[str], model: Path, data: str) -> None:
    """Check that data have the classes that a model knows.

    **Raises:** `ValueError` if both have names, and others.
    """
    from diffusion_eqx.models import read_record

    known = read_record(model).class_names
    if names and known and tuple(names) != known:
        raise ValueError(
            f"{model} knows the classes {', '.join(known)}, and {data} has {', '.join(names)}: name the "
            "data that the model was trained on, or others of the same classes"
        )


def class_numbers(given: Sequence[str], model: Path, num_classes: int | None) -> tuple[int, ...]:
    """The numbers of classes that are given by number or by name.

    **Raises:** `ValueError` for a name that the model's file does not have.
    """
    from diffusion_eqx.models import read_record

    known = read_record(model).class_names
    numbers = []
    for name in given:
        if name in known:
            numbers.append(known.index(name))
        elif name.isdigit():
            numbers.append(int(name))
        else:
            choices = f"0 to {num_classes - 1}" if num_classes else "none: the model has no classes"
            named = f", {', '.join(known)}" if known else ""
            raise ValueError(f"there is no class {name!r}; choose {choices}{named}")
    return tuple(numbers)
