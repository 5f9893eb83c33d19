"""A model as one file: safetensors with the configuration in its metadata.

A file restores the very model. Parts that the configuration does not describe, such as a network of
your own, are named in the file; `load_model` asks for them by name.
"""

import json
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from diffusion_eqx._values import AbstractValue
from diffusion_eqx.config import (
    from_json,
    to_json,
)
from diffusion_eqx.models.array_file import (
    ModelFileError,
    fill,
    named_arrays,
    read_arrays,
    read_metadata,
    write_arrays,
)
from diffusion_eqx.models.base import AbstractDiffusionModel
from diffusion_eqx.models.kinds import KINDS
from diffusion_eqx.recipes import from_recipe, to_recipe
from diffusion_eqx.schedules import AbstractSchedule, DiscreteSchedule, linear_betas

FORMAT = "diffusion_eqx.model"
FORMAT_VERSION = "1"

# Fields that configurations had once: whether a transformer saved memory while it was trained.
_FORMER = frozenset({"remat"})

# The parts of a model that may be others than its configuration describes.
_PARTS = (
    "denoiser.backbone",
    "denoiser.schedule",
    "denoiser.parameterization",
    "denoiser.null",
    "denoiser.learned_variance",
    "autoencoder",
)


class Record(NamedTuple):
    """What a model's file says of how the model came about.

    - `model`: the class of the model.
    - `ema`: whether the weights are a moving average.
    - `training`: what was recorded of the training, such as class names and settings.
    """

    model: str
    ema: bool
    training: dict[str, Any]

    @property
    def class_names(self) -> tuple[str, ...]:
        """The names of the classes, if they were recorded."""
        return tuple(self.training.get("class_names", ()))


def model_arrays(model: AbstractDiffusionModel) -> dict[str, jax.Array]:
    """All arrays of a model by their names in files, in the order of the model's leaves."""
    return {_name_in_files(name): array for name, array in named_arrays(model).items()}


def save_model(
    path: str | Path, model: AbstractDiffusionModel, *, record: dict[str, Any] | None = None
) -> None:
    """Write a model with its configuration, atomically. The same model and record give the same bytes.

    - `record`: {"ema": whether the weights are a moving average, "training": anything JSON can say of it}.

    **Raises:** `ValueError` for a model whose class this library cannot build again, or a record
    with other names.
    """
    kind = getattr(model.config, "kind", "")
    expected = KINDS.get(kind, (None, None))[1]
    if type(model) is not expected:
        known = ", ".join(sorted(c.__name__ for _, c in KINDS.values()))
        wanted = "no model of this library" if expected is None else expected.__name__
        raise ValueError(
            f"a {type(model).__name__} with a {type(model.config).__name__} cannot be "
            "restored: that configuration is "
            f"of {wanted}; save a {known}, each with a configuration of its own kind"
        )
    given = {"ema": False, "training": {}} | (record or {})
    unknown = sorted(given.keys() - {"ema", "training"})
    if unknown:
        raise ValueError(f"a record has 'ema' and 'training'; got {unknown[0]!r}")
    metadata = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "config": to_json(model.config),
        "own": json.dumps(_own_parts(model), sort_keys=True),
        "ema": json.dumps(given["ema"]),
        "training": json.dumps(given["training"], sort_keys=True),
    }
    write_arrays(path, model_arrays(model), metadata)


def load_model(path: str | Path, parts: Any = ()) -> AbstractDiffusionModel:
    """Read a model that `save_model` wrote, in the precision in which it was saved.

    Schedules alone have the precision that JAX is set to, as they do when they are built.

    - `parts`: what the model has of your own, one or a list: a module built as the saved one was (its
      weights are replaced by the file's), or a class for a schedule or parameterization whose fields
      are numbers.

    **Raises:** `FileNotFoundError`; `ModelFileError` if the file is something else, of an unknown
    version, damaged, lacks arrays, or names parts that are not given.
    """
    metadata, arrays = read_arrays(path, FORMAT, FORMAT_VERSION)
    config, model_class = _configured(metadata, path)
    several = [parts] if isinstance(parts, type | eqx.Module) else list(parts)
    empty = _skeleton(model_class, config)
    for place, described in json.loads(metadata.get("own", "{}")).items():
        part = _restored(path, place, described, several)
        empty = eqx.tree_at(
            lambda model, place=place: _get(model, place), empty, part, is_leaf=_is_none
        )
    model = fill(empty, arrays, path, rename=_name_in_files)
    return eqx.tree_at(lambda m: m.denoiser.schedule, model, _as_built(model.schedule))


def read_config(path: str | Path) -> Any:
    """The configuration of a model in a file; its weights are not read.

    **Raises:** as `load_model`.
    """
    return _configured(read_metadata(path, FORMAT, FORMAT_VERSION), path)[0]


def _configured(
    metadata: dict[str, str], path: str | Path
) -> tuple[Any, type[AbstractDiffusionModel]]:
    kind = json.loads(metadata["config"]).get("kind")
    if kind not in KINDS:
        raise ModelFileError(f"{path} holds a model of unknown kind {kind!r}; known: {list(KINDS)}")
    config_class, model_class = KINDS[kind]
    return from_json(config_class, _current(metadata["config"])), model_class


def read_record(path: str | Path) -> Record:
    """What the file of a model says of how it came about.

    **Raises:** as `load_model`.
    """
    metadata = read_metadata(path, FORMAT, FORMAT_VERSION)
    kind = json.loads(metadata["config"]).get("kind")
    name = KINDS[kind][1].__name__ if kind in KINDS else str(kind)
    return Record(name, json.loads(metadata["ema"]), json.loads(metadata["training"]))


def _current(config: str) -> str:
    """The JSON of a configuration without the fields of earlier releases that changed no result."""

    def without(held: Any) -> Any:
        if not isinstance(held, dict):
            return held
        return {name: without(value) for name, value in held.items() if name not in _FORMER}

    return json.dumps(without(json.loads(config)))


def _skeleton(kind: type[AbstractDiffusionModel], config: Any) -> Any:
    # Only shapes are built here; no random weights are drawn to be thrown away.
    return eqx.filter_eval_shape(kind, config, key=jax.random.key(0))


def _name_in_files(name: str) -> str:
    # Most models hold a denoiser and nothing else, so arrays are named from there.
    return name.removeprefix("denoiser.")


def _own_parts(model: AbstractDiffusionModel) -> dict[str, Any]:
    """The parts that differ from what the configuration describes, each with what is needed to find
    it again.
    """
    usual = _skeleton(type(model), model.config)
    own = {}
    for place in _PARTS:
        # Whether dropout rests is nothing of a model: who draws or trains with it says so.
        part = eqx.nn.inference_mode(_get(model, place), value=False)
        if not _same_build(part, _get(usual, place)):
            own[place] = _described(part)
    return own


def _same_build(part: Any, expected: Any) -> bool:
    """Whether two parts differ in nothing but the values and the precision of their arrays."""

    def kind(leaf: Any) -> Any:
        if not hasattr(leaf, "shape"):
            return leaf
        # A network in another precision is the same build.
        floating = jnp.issubdtype(leaf.dtype, jnp.floating)
        return leaf.shape, "floating" if floating else str(leaf.dtype)

    def build(tree: Any) -> Any:
        return jax.tree.map(kind, tree)

    first, second = build(part), build(expected)
    same_tree = jax.tree.structure(first) == jax.tree.structure(second)
    return same_tree and jax.tree.leaves(first) == jax.tree.leaves(second)


def _as_built(schedule: AbstractSchedule) -> AbstractSchedule:
    def default(leaf: Any) -> Any:
        floating = eqx.is_array(leaf) and jnp.issubdtype(leaf.dtype, jnp.floating)
        return leaf.astype(jnp.result_type(float)) if floating else leaf

    return jax.tree.map(default, schedule)


def _described(part: Any) -> Any:
    if part is None or isinstance(part, bool | int | float | str):
        return {"value": part}
    described: dict[str, Any] = {"class": type(part).__name__}
    if isinstance(part, DiscreteSchedule):
        described["timesteps"] = part.num_timesteps
    elif isinstance(part, AbstractValue) and not jax.tree.leaves(eqx.filter(part, eqx.is_array)):
        described["recipe"] = to_recipe(part)
    return described


def _restored(path: str | Path, place: str, described: Any, parts: list[Any]) -> Any:
    if "value" in described:
        return described["value"]
    if "timesteps" in described:
        total = described["timesteps"]
        return _shapes(DiscreteSchedule(linear_betas(total, 1e-4, 2e-2)))
    if "recipe" in described:
        try:
            return from_recipe(described["recipe"], parts)
        except ValueError as error:
            raise ModelFileError(f"{path}: {place} cannot be restored: {error}") from error
    name = described["class"]
    for part in parts:
        if type(part).__name__ == name:
            return _shapes(part)
    raise ModelFileError(
        f"{path} holds a {name} of your own as {place}; give one that is built as the saved one was, as "
        f"load_model(path, parts=[{name}(...)])"
    )


def _shapes(part: Any) -> Any:
    def shape(leaf: Any) -> Any:
        if eqx.is_array(leaf) or isinstance(leaf, np.ndarray):
            return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype)
        return leaf

    return jax.tree.map(shape, part)


def _get(model: Any, place: str) -> Any:
    found = model
    for name in place.split("."):
        found = getattr(found, name, None)
    return found


def _is_none(leaf: Any) -> bool:
    return leaf is None
