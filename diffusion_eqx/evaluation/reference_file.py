"""A reference as one safetensors file, with what it was made of and how in its metadata."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np

from diffusion_eqx.evaluation.digests import digest_of_arrays
from diffusion_eqx.evaluation.reference import Preprocessing, Reference
from diffusion_eqx.models import ModelFileError, read_arrays, write_arrays

FORMAT = "diffusion_eqx.reference"
FORMAT_VERSION = "1"
_ARRAYS = ("features", "mean", "covariance")


def save_reference(path: str | Path, reference: Reference) -> None:
    """Write a reference as one safetensors file, which appears whole or not at all.

    The metadata says the feature function, the digest of the pixels, the preprocessing, the count, the
    release of this library, and a digest of all that, which `load_reference` checks. The same reference
    gives the same bytes.
    """
    arrays = {name: np.asarray(getattr(reference, name)) for name in _ARRAYS}
    metadata = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "feature_name": reference.feature_name,
        "preprocessing": json.dumps(dataclasses.asdict(reference.preprocessing), sort_keys=True),
        "data_digest": reference.data_digest,
        "count": str(reference.count),
        "version": reference.version,
    }
    write_arrays(path, arrays, metadata | {"digest": digest_of_arrays(arrays, metadata)})


def load_reference(path: str | Path) -> Reference:
    """Read a reference that `save_reference` wrote.

    **Raises:** `FileNotFoundError`; `ModelFileError`, which is a `ValueError`, if the file is something
    else, of an unknown version, or does not have the digest that it was written with.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(
            f"there is no reference file {path}; make one by save_reference(path, make_reference(features, "
            "data))"
        )
    try:
        metadata, arrays = read_arrays(path, FORMAT, FORMAT_VERSION)
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ModelFileError(f"{path} is damaged: {error}; {_REMEDY}") from error
    written = metadata.pop("digest", None)
    found = digest_of_arrays(arrays, metadata)
    if written != found:
        raise ModelFileError(
            f"{path} is damaged: its content has the digest {found[:16]}…, and was written with "
            f"{str(written)[:16]}…; {_REMEDY}"
        )
    return Reference(
        **{name: arrays[name] for name in _ARRAYS},
        feature_name=metadata["feature_name"],
        preprocessing=_preprocessing(json.loads(metadata["preprocessing"])),
        data_digest=metadata["data_digest"],
        version=metadata["version"],
    )


_REMEDY = "delete it and make it again"


def _preprocessing(said: dict[str, Any]) -> Preprocessing:
    height, width, channels = said["image_shape"]
    low, high = said["value_range"]
    return Preprocessing((height, width, channels), said["resize"], said["rounding"], (low, high))
