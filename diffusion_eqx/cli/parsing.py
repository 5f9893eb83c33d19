"""Arguments as options; what a configuration refuses is said in one line."""

import contextlib
import io
import sys
from typing import Any

import tyro
from pydantic import ValidationError


def parsed(command: Any, **options: Any) -> tuple[Any, list[str]]:
    """The options that `tyro.cli` makes of arguments, and the arguments that are none of them.

    **Raises:** `ValidationError` if a configuration refuses its values; `SystemExit` as tyro, which
    explains what it cannot parse.
    """
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
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
