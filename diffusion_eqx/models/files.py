"""A model as one file: safetensors with the configuration in its metadata."""

import json
import os
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import safetensors
import safetensors.numpy

from diffusion_eqx.config import (
    AbstractDiffusionConfig,
    DDIMConfig,
    DDPMConfig,
    LDMConfig,
    ScoreDiffusionConfig,
    from_json,
    to_json,
)
from diffusion_eqx.models.base import AbstractDiffusionModel
from diffusion_eqx.models.ddim import DDIMModel
from diffusion_eqx.models.ddpm import DDPMModel
from diffusion_eqx.models.latent import LDMModel
from diffusion_eqx.models.score import ScoreDiffusionModel

FORMAT = "diffusion_eqx.model"
FORMAT_VERSION = "1"

_KINDS: dict[str, tuple[type[AbstractDiffusionConfig], type[AbstractDiffusionModel]]] = {
    "ddpm": (DDPMConfig, DDPMModel),
    "ddim": (DDIMConfig, DDIMModel),
    "score": (ScoreDiffusionConfig, ScoreDiffusionModel),
    "ldm": (LDMConfig, LDMModel),
}


class SavedModel(NamedTuple):
    """A model read from a file, and what its file records of its training (`ema`: averaged weights?)."""

    model: AbstractDiffusionModel
    ema: bool
    training: dict[str, Any]


class ModelFileError(ValueError):
    """The file is not a model of this library, or does not fit its own configuration."""


def named_arrays(tree: Any) -> dict[str, jax.Array]:
    """All arrays of a PyTree by their place in it, e.g. `backbone.conv_in.weight`."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(eqx.filter(tree, eqx.is_array))
    return {path_name(path): leaf for path, leaf in leaves}


def model_arrays(model: AbstractDiffusionModel) -> dict[str, jax.Array]:
    """All arrays of a model by their names in files, in the order of the model's leaves."""
    return {_name_in_files(name): array for name, array in named_arrays(model).items()}


def path_name(path: tuple[Any, ...]) -> str:
    """A PyTree path as attributes and indices joined by dots."""
    return jax.tree_util.keystr(path, simple=True, separator=".")


def _name_in_files(name: str) -> str:
    # The first files held a model's denoiser and nothing else, so its arrays are named from there.
    return name.removeprefix("denoiser.")


def save_model(
    path: str | Path,
    model: AbstractDiffusionModel,
    *,
    ema: bool = False,
    training: dict[str, Any] | None = None,
) -> None:
    """Write a model with its configuration, atomically.

    `ema`: whether the weights are a moving average; `training`: anything JSON can say of the run.
    """
    path = Path(path)
    metadata = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "config": to_json(model.config),
        "ema": json.dumps(ema),
        "training": json.dumps(training or {}),
    }
    arrays = {name: np.asarray(a) for name, a in model_arrays(model).items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    partial.write_bytes(safetensors.numpy.save(arrays, metadata))
    os.replace(partial, path)


def load_model(path: str | Path) -> SavedModel:
    """Read a model written by `save_model`.

    **Raises:** `FileNotFoundError`; `ModelFileError` if the file is something else, of an unknown
    version, damaged, or lacks arrays that its configuration asks for.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no model file {path}")
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            names = file.keys()
            arrays = {name: file.get_tensor(name) for name in names}
    except safetensors.SafetensorError as error:
        raise ModelFileError(f"{path} is damaged or not a safetensors file: {error}") from error
    if metadata.get("format") != FORMAT:
        raise ModelFileError(
            f"{path} is not a diffusion_eqx model: its format is {metadata.get('format')!r}, "
            f"expected {FORMAT!r}"
        )
    if metadata.get("format_version") != FORMAT_VERSION:
        raise ModelFileError(
            f"{path} has format version {metadata.get('format_version')}; this release of "
            f"diffusion_eqx reads version {FORMAT_VERSION}"
        )
    kind = json.loads(metadata["config"]).get("kind")
    if kind not in _KINDS:
        raise ModelFileError(
            f"{path} holds a model of unknown kind {kind!r}; known: {list(_KINDS)}"
        )
    config_class, model_class = _KINDS[kind]
    config = from_json(config_class, metadata["config"])
    # Only shapes are built here; no random weights are drawn to be thrown away.
    empty = eqx.filter_eval_shape(model_class, config, key=jax.random.key(0))
    model = _fill(empty, arrays, path)
    return SavedModel(model, json.loads(metadata["ema"]), json.loads(metadata["training"]))


def _fill(tree: Any, arrays: dict[str, np.ndarray], path: Path) -> Any:
    def leaf(place: tuple[Any, ...], expected: Any) -> Any:
        if not isinstance(expected, jax.ShapeDtypeStruct):
            return expected
        name = _name_in_files(path_name(place))
        if name not in arrays:
            raise ModelFileError(f"{path} lacks the array {name} that its configuration asks for")
        found = arrays.pop(name)
        if found.shape != expected.shape or found.dtype != expected.dtype:
            raise ModelFileError(
                f"{path}: {name} is {found.dtype}{found.shape}; its configuration asks for "
                f"{expected.dtype}{expected.shape}"
            )
        return jnp.asarray(found)

    arrays = dict(arrays)
    filled = jax.tree_util.tree_map_with_path(leaf, tree)
    if arrays:
        raise ModelFileError(f"{path} holds arrays that its model does not have: {sorted(arrays)}")
    return filled
