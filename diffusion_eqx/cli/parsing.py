"""Arguments as options with their help; what a configuration refuses is said in one line."""

import contextlib
import dataclasses
import functools
import io
import sys
from collections.abc import Callable
from typing import Any

import tyro
from pydantic import ValidationError
from tyro.constructors import ConstructorRegistry, StructConstructorSpec, StructTypeInfo

# How tyro reads classes here. What the rule asks of tyro's own rules bears the mark, so that it ends.
_READING = ConstructorRegistry()
_ASKED = object()


def parsed(command: Any, **options: Any) -> tuple[Any, list[str]]:
    """The options that `tyro.cli` makes of arguments, and the arguments that are none of them.

    **Raises:** `ValidationError` if a configuration refuses its values; `SystemExit` as tyro, which
    explains what it cannot parse.
    """
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said), _READING:
            return tyro.cli(command, return_unknown_args=True, **options)
    except SystemExit as exit:
        refused = _refusal(exit)
        if refused is not None:
            raise refused from None
        print(said.getvalue(), end="", file=sys.stderr)
        raise


def _refusal(error: BaseException | None) -> ValidationError | None:
    """The refusal of a configuration for which tyro ended, in the chain of what led to it."""
    while error is not None and not isinstance(error, ValidationError):
        error = error.__cause__ or error.__context__
    return error


@_READING.struct_rule
def _with_joined_lines(info: StructTypeInfo) -> StructConstructorSpec | None:
    """What tyro reads off a class, each paragraph of a field's docstring as one line.

    tyro keeps the line breaks of the source, between those that the width of the terminal asks for.
    """
    if _ASKED in info.markers or not dataclasses.is_dataclass(info.type):
        return None
    asked = dataclasses.replace(info, markers=(*info.markers, _ASKED))
    spec = ConstructorRegistry.get_struct_spec(asked)
    if not isinstance(spec, StructConstructorSpec):
        return None
    fields = [
        dataclasses.replace(field, helptext=functools.partial(_joined, field.helptext))
        for field in spec.fields
    ]
    return dataclasses.replace(spec, fields=tuple(fields))


def _joined(text: str | Callable[[], str | None] | None) -> str | None:
    found = text() if callable(text) else text
    if found is None:
        return None
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in found.split("\n\n"))
