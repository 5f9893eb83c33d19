"""A file of options for `train`: YAML, or JSON, which is YAML too."""

import dataclasses
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from diffusion_eqx.cli.errors import explained
from diffusion_eqx.cli.goal import KINDS, Goal
from diffusion_eqx.cli.train import default_model, train_of
from diffusion_eqx.config import TrainingConfig

_ENDINGS = (".yaml", ".yml", ".json")


def train_with_file(arguments: list[str]) -> tuple[type[Goal], Any, list[str]]:
    """The options class of `train`, its defaults as a file says or None, and the arguments that are left.

    - `arguments`: what follows `train` on the command line. The first may be the path of a file of options.

    **Raises:** `ValueError` if the file cannot be read or has options that there are not; `OSError` if it
    is not there.
    """
    given: dict[str, Any] = {}
    rest = arguments
    path = Path(arguments[0]) if arguments and arguments[0].endswith(_ENDINGS) else None
    if path is not None:
        given, rest = _read(path), arguments[1:]
    kind = _kind(rest) or given.get("kind", "ddim")
    command = train_of(kind)
    if path is None:
        return command, None, rest
    return command, _defaults(path, command, {**given, "kind": kind}, rest), rest


def _kind(arguments: list[str]) -> str | None:
    for number, argument in enumerate(arguments):
        if argument.startswith("--kind="):
            return argument.removeprefix("--kind=")
        if argument == "--kind" and number + 1 < len(arguments):
            return arguments[number + 1]
    return None


def _read(path: Path) -> dict[str, Any]:
    import yaml

    try:
        found = yaml.safe_load(path.read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is no YAML: {error}") from error
    if not isinstance(found, dict):
        raise ValueError(f"{path} must hold options by their names, such as `data: digits`")
    return {str(name).replace("-", "_"): value for name, value in found.items()}


def _defaults(path: Path, command: type[Goal], given: dict[str, Any], rest: list[str]) -> Goal:
    names = {field.name for field in dataclasses.fields(command)}
    unknown = sorted(given.keys() - names)
    if unknown:
        raise ValueError(
            f"{path} has options that there are not: {', '.join(unknown)}; there are "
            f"{', '.join(sorted(names))}"
        )
    fields = dict(given)
    for name in ("out", "data_dir", "init_from", "labels", "classifier"):
        if fields.get(name) is not None:
            fields[name] = Path(fields[name])
    for name in ("size", "stages"):
        if isinstance(fields.get(name), list):
            fields[name] = tuple(fields[name])
    if "out" not in fields:
        if not any(argument.split("=")[0] in ("--out", "-o") for argument in rest):
            raise ValueError(f"{path} has no `out`, the folder of the run; add it, or give --out")
        fields["out"] = Path()  # The command line says.
    if "model" in fields:
        fields["model"] = _config(
            path, "model", KINDS[given["kind"]], given["model"], given["kind"]
        )
    if "training" in fields:
        fields["training"] = _config(
            path, "training", TrainingConfig, given["training"], given["kind"]
        )
    return command(**fields)


def _config(path: Path, name: str, kind: type, given: Any, model: str) -> Any:
    if not isinstance(given, dict):
        raise ValueError(f"{path}: {name} must hold options by their names")
    given = _underscored(given)
    if name == "model":
        # Options of a file change the default, as those of the command line do.
        default = TypeAdapter(kind).dump_python(default_model(model))
        given = _merged(default, given)
    try:
        return TypeAdapter(kind).validate_python(given)
    except ValidationError as error:
        raise ValueError(f"{path}: {name}: {explained(error)}") from error


def _underscored(given: dict[str, Any]) -> dict[str, Any]:
    return {
        str(name).replace("-", "_"): _underscored(value) if isinstance(value, dict) else value
        for name, value in given.items()
    }


def _merged(default: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    merged = dict(default)
    for name, value in given.items():
        inner = merged.get(name)
        if isinstance(value, dict) and isinstance(inner, dict):
            value = _merged(inner, value)
        merged[name] = value
    return merged
