"""A file of options for `train`: YAML, or JSON, which is YAML too."""

import dataclasses
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from diffusion_eqx.cli.errors import explained
from diffusion_eqx.cli.goal import Goal
from diffusion_eqx.cli.unknown import nearest
from diffusion_eqx.config import TrainingConfig

ENDINGS = (".yaml", ".yml", ".json")

_PATHS = ("out", "data_dir", "init_from", "labels", "classifier")


def read_options(path: Path) -> dict[str, Any]:
    """What a file of options says, by the names of the options, with underscores.

    **Raises:** `ValueError` if it is no YAML or not of options; `OSError` if it is not there.
    """
    import yaml

    try:
        found = yaml.safe_load(path.read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is no YAML: {error}") from error
    if not isinstance(found, dict):
        raise ValueError(f"{path} must hold options by their names, such as `data: digits`")
    options = _underscored(found)
    for name in ("model", "training"):
        if not isinstance(options.get(name, {}), dict):
            raise ValueError(f"{path}: {name} must hold options by their names")
    return options


def defaults_of(path: Path, given: dict[str, Any], command: type[Goal], model: Any) -> Goal:
    """The options of a command as a file says them.

    - `given`: what the file says.
    - `model`: the configuration over which its `model` lies, or None to leave it out.

    **Raises:** `ValueError` for options that there are not.
    """
    fields = dict(given)
    _refuse_unknown(str(path), fields, sorted(field.name for field in dataclasses.fields(command)))
    if model is None:
        fields.pop("model", None)
    for name in _PATHS:
        if fields.get(name) is not None:
            fields[name] = Path(fields[name])
    for name in ("size", "stages"):
        if isinstance(fields.get(name), list):
            fields[name] = tuple(fields[name])
    if "training" in fields:
        fields["training"] = _config(path, "training", TrainingConfig(), fields["training"])
    if "model" in fields:
        fields["model"] = _config(path, "model", model, fields["model"])
    return command(**fields)


def _config(path: Path, name: str, default: Any, given: dict[str, Any]) -> Any:
    """A configuration whose options lie over a default, as those of the command line do."""
    kind = TypeAdapter(type(default))
    whole = kind.dump_python(default)
    _refuse_unknown(f"{path}: {name}", given, sorted(whole))
    try:
        return kind.validate_python(_merged(whole, given))
    except ValidationError as error:
        raise ValueError(f"{path}: {name}: {explained(error)}") from error


def _refuse_unknown(place: str, given: dict[str, Any], names: list[str]) -> None:
    unknown = sorted(given.keys() - set(names))
    if unknown:
        said = ", ".join(name + nearest(name, names) for name in unknown)
        raise ValueError(
            f"{place} has options that there are not: {said}; there are {', '.join(names)}"
        )


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
            another = value.get("kind", inner.get("kind")) != inner.get("kind")
            value = value if another else _merged(inner, value)
        merged[name] = value
    return merged
