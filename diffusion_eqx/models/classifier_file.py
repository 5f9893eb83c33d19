"""A classifier of noisy images as one file: safetensors with the configuration in its metadata."""

import json
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax

from diffusion_eqx.config import NoisyClassifierConfig, from_json, to_json
from diffusion_eqx.models.array_file import fill, named_arrays, read_arrays, write_arrays
from diffusion_eqx.models.classifier import NoisyClassifier

FORMAT = "diffusion_eqx.classifier"
FORMAT_VERSION = "1"


class SavedClassifier(NamedTuple):
    """A classifier read from a file, and what the file records of its training."""

    classifier: NoisyClassifier
    training: dict[str, Any]


def save_classifier(
    path: str | Path, classifier: NoisyClassifier, *, training: dict[str, Any] | None = None
) -> None:
    """Write a classifier and its configuration as one safetensors file, which appears whole or not at all.

    - `training`: what the file shall record of the training; anything that JSON can say.
    """
    metadata = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "config": to_json(classifier.config),
        "training": json.dumps(training or {}),
    }
    write_arrays(path, named_arrays(classifier), metadata)


def load_classifier(path: str | Path) -> SavedClassifier:
    """Read a classifier that `save_classifier` wrote, for inference.

    **Raises:** `FileNotFoundError`; `ModelFileError` if the file is something else, of an unknown version,
    damaged, or lacks arrays that its configuration asks for.
    """
    metadata, arrays = read_arrays(path, FORMAT, FORMAT_VERSION)
    config = from_json(NoisyClassifierConfig, metadata["config"])
    # Only shapes are built here; no random weights are drawn to be thrown away.
    empty = eqx.filter_eval_shape(NoisyClassifier, config, key=jax.random.key(0))
    classifier = eqx.nn.inference_mode(fill(empty, arrays, path))
    return SavedClassifier(classifier, json.loads(metadata["training"]))
