"""A model as one file: safetensors with the configuration in its metadata."""

import json
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax

from diffusion_eqx.config import (
    AbstractModelConfig,
    DDIMConfig,
    DDPMConfig,
    DiTConfig,
    LDMConfig,
    ScoreDiffusionConfig,
    from_json,
    to_json,
)
from diffusion_eqx.models.array_file import (
    ModelFileError,
    fill,
    named_arrays,
    read_arrays,
    write_arrays,
)
from diffusion_eqx.models.base import AbstractDiffusionModel
from diffusion_eqx.models.ddim import DDIMModel
from diffusion_eqx.models.ddpm import DDPMModel
from diffusion_eqx.models.dit import DiTModel
from diffusion_eqx.models.latent import LDMModel
from diffusion_eqx.models.score import ScoreDiffusionModel

FORMAT = "diffusion_eqx.model"
FORMAT_VERSION = "1"

_KINDS: dict[str, tuple[type[AbstractModelConfig], type[AbstractDiffusionModel]]] = {
    "ddpm": (DDPMConfig, DDPMModel),
    "ddim": (DDIMConfig, DDIMModel),
    "dit": (DiTConfig, DiTModel),
    "score": (ScoreDiffusionConfig, ScoreDiffusionModel),
    "ldm": (LDMConfig, LDMModel),
}


class SavedModel(NamedTuple):
    """A model read from a file, and what its file records of its training (`ema`: averaged weights?)."""

    model: AbstractDiffusionModel
    ema: bool
    training: dict[str, Any]


def model_arrays(model: AbstractDiffusionModel) -> dict[str, jax.Array]:
    """All arrays of a model by their names in files, in the order of the model's leaves."""
    return {_name_in_files(name): array for name, array in named_arrays(model).items()}


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
    metadata = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "config": to_json(model.config),
        "ema": json.dumps(ema),
        "training": json.dumps(training or {}),
    }
    write_arrays(path, model_arrays(model), metadata)


def load_model(path: str | Path) -> SavedModel:
    """Read a model written by `save_model`.

    **Raises:** `FileNotFoundError`; `ModelFileError` if the file is something else, of an unknown
    version, damaged, or lacks arrays that its configuration asks for.
    """
    metadata, arrays = read_arrays(path, FORMAT, FORMAT_VERSION)
    kind = json.loads(metadata["config"]).get("kind")
    if kind not in _KINDS:
        raise ModelFileError(
            f"{path} holds a model of unknown kind {kind!r}; known: {list(_KINDS)}"
        )
    config_class, model_class = _KINDS[kind]
    config = from_json(config_class, metadata["config"])
    # Only shapes are built here; no random weights are drawn to be thrown away.
    empty = eqx.filter_eval_shape(model_class, config, key=jax.random.key(0))
    model = fill(empty, arrays, path, rename=_name_in_files)
    return SavedModel(model, json.loads(metadata["ema"]), json.loads(metadata["training"]))
