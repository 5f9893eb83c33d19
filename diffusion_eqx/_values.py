"""Parts that are values: their floats are numbers, which may be swept, measured and differentiated.

Schedules, samplers, grids, guidance and denoisers are such values. A value holds Python floats, so
that it can be compared, hashed, printed and written as JSON. A driver turns them into arrays at its
edge (`as_arrays`), so that no new number costs a new compile. What changes the program itself is a
static field instead.

The numbers of a sampler or a guidance that a person may choose at run time are declared by
`number`, once. The catalogue, the command lines, the exporter and the documentation read them off
with `numbers`.
"""

import math
from typing import Any, NamedTuple, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

ValueT = TypeVar("ValueT")


class AbstractValue(eqx.Module):
    """A module whose Python floats are numbers, in contrast to a network, whose floats are its own
    affair.

    **Raises:** `ValueError` if a declared number is out of its range.
    """

    def __check_init__(self):
        check_numbers(self)


class Number(NamedTuple):
    """A number that may be chosen at run time.

    - `value`: what the part holds now.
    - `default`: what its class declares.
    - `neutral`: the number that switches its effect off, or None.
    - `minimum`, `maximum`: the range, both ends included.
    - `about`: one sentence for people.
    """

    value: Any
    default: float
    neutral: float | None
    minimum: float
    maximum: float
    about: str


def number(
    default: float,
    *,
    minimum: float,
    maximum: float,
    about: str,
    neutral: float | None = None,
    **field: Any,
) -> Any:
    """Declare a field as a number that may be chosen at run time; the arguments are those of `Number`.

    Further keywords go to `equinox.field`, such as `kw_only=True`.
    """
    declared = Number(None, default, neutral, minimum, maximum, about)
    return eqx.field(default=default, converter=as_real, metadata={"number": declared}, **field)


def real(default: float) -> Any:
    """Declare a field as a number that is part of what a thing is, and not chosen at run time by
    its name.
    """
    return eqx.field(default=default, converter=as_real)


def as_real(value: Any) -> Any:
    """A Python float for every known number; arrays and functions stay as they are."""
    if isinstance(value, int | float | np.number) and not isinstance(value, bool):
        return float(value)
    return value


def numbers(value: Any) -> dict[str, Number]:
    """The declared numbers of a part and of the parts within it, by their names.

    `value`: one part, or a tuple of parts.

    **Raises:** `ValueError` if two of them have one name.
    """
    found: dict[str, Number] = {}
    for path, declared, held in declared_numbers(value):
        name = path[-1]
        if name in found:
            raise ValueError(
                f"two numbers are called {name!r}, so that neither can be chosen by its name; leave one of "
                "the parts out, or write a part of your own in which the names differ"
            )
        found[name] = declared._replace(value=held)
    return found


def with_numbers(value: ValueT, chosen: dict[str, Any]) -> ValueT:
    """The part with some of its declared numbers replaced.

    **Raises:** `ValueError` for a name that it does not have, or a known number out of its range.
    """
    places = {path[-1]: path for path, _, _ in declared_numbers(value)}
    for name, new in chosen.items():
        if name not in places:
            known = ", ".join(places) or "none"
            raise ValueError(f"there is no number {name!r} here; the numbers are: {known}")
        path = places[name]
        value = eqx.tree_at(lambda tree, path=path: held_at(tree, path), value, as_real(new))
    check_numbers(value)
    return value


def check_numbers(value: Any) -> None:
    """**Raises:** `ValueError` if a declared number is known and out of its range."""
    for path, declared, held in declared_numbers(value):
        known = isinstance(held, int | float)
        if known and not (math.isfinite(held) and declared.minimum <= held <= declared.maximum):
            raise ValueError(
                f"{path[-1]} must be between {declared.minimum:g} and {declared.maximum:g}; got {held:g} "
                f"({declared.about})"
            )


def as_arrays(tree: ValueT) -> ValueT:
    """The part with every float an array, so that a compiled program takes it as an input.

    Networks within are left alone.
    """

    def convert(leaf: Any) -> Any:
        return jnp.asarray(leaf, float) if isinstance(leaf, float) else leaf

    return jax.tree.map(convert, tree, is_leaf=_is_foreign)


def is_known(value: Any, number: float | None) -> bool:
    """Whether a number is known while tracing, and equal to `number`."""
    return isinstance(value, int | float) and value == number


def is_traced(tree: Any) -> bool:
    """Whether some leaf is not known yet: a tracer, or just a shape."""
    leaves = jax.tree.leaves(tree)
    return any(isinstance(leaf, Tracer | jax.ShapeDtypeStruct) for leaf in leaves)


def _is_foreign(node: Any) -> bool:
    return isinstance(node, eqx.Module) and not isinstance(node, AbstractValue)


def declared_numbers(value: Any, path: tuple[str | int, ...] = ()) -> list[tuple[Any, Number, Any]]:
    """(path, declaration, value) of each declared number of a part and those within, outer ones first."""
    if isinstance(value, tuple | list):
        return [row for i, part in enumerate(value) for row in declared_numbers(part, (*path, i))]
    if not isinstance(value, AbstractValue):
        return []
    rows = []
    for field in value.__dataclass_fields__.values():
        held = getattr(value, field.name)
        declared = field.metadata.get("number")
        place = (*path, field.name)
        rows += declared_numbers(held, place) if declared is None else [(place, declared, held)]
    return rows


def held_at(tree: Any, path: tuple[str | int, ...]) -> Any:
    """What lies at a path of attributes and indices."""
    for step in path:
        tree = tree[step] if isinstance(step, int) else getattr(tree, step)
    return tree


def check_kind(given: Any, kind: type, wanted: str, remedy: str = "") -> None:
    """**Raises:** `TypeError` if a part is not of its kind, such as a class in place of its instance.

    - `wanted`, `remedy`: what the error says before and after it names what was given.
    """
    if isinstance(given, kind):
        return
    if isinstance(given, type):
        found = (
            f"the class {given.__name__} itself, where an instance is wanted: {given.__name__}()"
        )
    else:
        found = repr(given) if isinstance(given, str) else f"a {type(given).__name__}"
    raise TypeError(f"{wanted}; got {found}{remedy}")
