"""What a room shows of itself to `dir` and to the Tab key: its own names, not what it is made of."""

from collections.abc import Callable
from types import ModuleType
from typing import Any


def face(namespace: dict[str, Any]) -> Callable[[], list[str]]:
    """The `__dir__` of a room, given its globals."""
    # A package imports nothing but its face; a single file imports what it works with, too.
    package, room = "__path__" in namespace, namespace["__name__"]

    def own(name: str, value: Any) -> bool:
        if name.startswith("_") or isinstance(value, ModuleType):
            return False
        return package or getattr(value, "__module__", None) == room

    return lambda: sorted(name for name, value in namespace.items() if own(name, value))
