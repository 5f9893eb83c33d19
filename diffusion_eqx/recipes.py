"""Values as JSON: a sampler, a grid, a guidance, a schedule or a parameterization by its class and fields.

    {"class": "DDIMSampler", "eta": 0.5, "grid": {"class": "KarrasGrid", "rho": 7.0, …}, …}

A value that holds a network or an array has no such recipe.
"""

import inspect
import math
from collections.abc import Iterable
from typing import Any

import diffrax
import equinox as eqx

from diffusion_eqx import guidance, parameterizations, samplers, schedules
from diffusion_eqx._face import face as _face
from diffusion_eqx._values import AbstractValue

_ROOMS = (schedules, parameterizations, samplers, guidance)
# JSON has no infinity.
_INFINITY = "infinity"


def to_recipe(value: AbstractValue) -> dict[str, Any]:
    """The recipe of a value, made of what JSON knows.

    **Raises:** `ValueError` naming the field that JSON cannot say, such as an array or a network.
    """
    recipe: dict[str, Any] = {"class": type(value).__name__}
    for name in _arguments(type(value)):
        recipe[name] = _encoded(getattr(value, name), f"{type(value).__name__}.{name}")
    return recipe


def from_recipe(recipe: dict[str, Any], parts: Iterable[Any] = ()) -> Any:
    """The value of a recipe.

    `parts`: classes of your own that the recipe may name, besides those of the library.

    **Raises:** `ValueError` if a class is not known, or its fields are others than the recipe's.
    """
    own = {part.__name__: part for part in parts if isinstance(part, type)}
    return _decoded(recipe, own)


def _arguments(kind: type) -> list[str]:
    """The names that a class takes when it is made."""
    return [name for name in inspect.signature(kind.__init__).parameters if name != "self"]


def _encoded(held: Any, where: str) -> Any:
    if held is None or isinstance(held, bool | int | str):
        return held
    if isinstance(held, float):
        return _INFINITY if math.isinf(held) else held
    if isinstance(held, tuple | list):
        return [_encoded(one, where) for one in held]
    if isinstance(held, AbstractValue):
        return to_recipe(held)
    if isinstance(held, diffrax.AbstractSolver):
        return {"class": f"diffrax:{type(held).__name__}"}
    raise ValueError(
        f"{where} holds a {type(held).__name__}, which JSON cannot say; only numbers, texts, "
        "and parts made of them "
        "can be written down"
    )


def _decoded(held: Any, own: dict[str, type]) -> Any:
    if held == _INFINITY:
        return math.inf
    if isinstance(held, list):
        return tuple(_decoded(one, own) for one in held)
    if not isinstance(held, dict):
        return held
    fields = {name: _decoded(one, own) for name, one in held.items() if name != "class"}
    kind = _find(held.get("class", ""), own)
    unknown = sorted(fields.keys() - set(_arguments(kind)))
    if unknown and kind.__module__.split(".")[0] != "diffrax":
        raise ValueError(
            f"{kind.__name__} has no field {unknown[0]!r}; the recipe is of another release, "
            "or of another class of "
            "that name"
        )
    return kind(**fields)


def _find(name: str, own: dict[str, type]) -> type[eqx.Module]:
    if name in own:
        return own[name]
    library, _, solver = name.partition(":")
    if library == "diffrax" and hasattr(diffrax, solver):
        return getattr(diffrax, solver)
    for room in _ROOMS:
        kind = getattr(room, name, None)
        if isinstance(kind, type) and issubclass(kind, AbstractValue):
            return kind
    raise ValueError(
        f"{name!r} is no class of this library; if it is one of your own, give it as parts=[{name}]"
    )


__dir__ = _face(globals())
