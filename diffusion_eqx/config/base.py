"""What all configurations have in common: strict validation and a JSON form.

Configurations are frozen pydantic dataclasses: a wrong value is refused at construction with the
field's name, what was given and what is allowed. This package does not import jax, so that command
lines can check their input before anything heavy is loaded.
"""

from typing import TypeVar

from pydantic import ConfigDict, TypeAdapter

# Misspelt fields are errors; non-finite numbers never make sense in a configuration.
STRICT = ConfigDict(extra="forbid", allow_inf_nan=False)

ConfigT = TypeVar("ConfigT")


def to_json(config: object) -> str:
    """The JSON text of a configuration. `from_json` is its inverse."""
    return TypeAdapter(type(config)).dump_json(config).decode()


def from_json(kind: type[ConfigT], text: str) -> ConfigT:
    """Read a configuration of class `kind` from its JSON text.

    **Raises:** `pydantic.ValidationError` (a `ValueError`) naming each field that is missing,
    unknown or out of range.
    """
    return TypeAdapter(kind).validate_json(text)
