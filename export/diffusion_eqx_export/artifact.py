"""Reading an artifact back, with its digests checked."""

import hashlib
import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import safetensors

from diffusion_eqx_export.container import FORMAT, FORMAT_VERSION
from diffusion_eqx_export.errors import ArtifactError


class Artifact(NamedTuple):
    """The manifest and the tensors (padding left out) of an artifact."""

    manifest: dict[str, Any]
    tensors: dict[str, np.ndarray]


def read_artifact(path: str | Path) -> Artifact:
    """Read an artifact and check every digest.

    **Raises:** `FileNotFoundError`; `ArtifactError` naming what is wrong.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no artifact {path}")
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            stored = file.keys()
            names = [name for name in stored if not name.startswith("padding.")]
            tensors = {name: file.get_tensor(name) for name in names}
    except safetensors.SafetensorError as error:
        raise ArtifactError(f"{path} is damaged or not a safetensors file: {error}") from error
    if metadata.get("format") != FORMAT:
        raise ArtifactError(
            f"{path} is no artifact: its format is {metadata.get('format')!r}, not {FORMAT!r}"
        )
    if metadata.get("format_version") != FORMAT_VERSION:
        raise ArtifactError(
            f"{path} has format version {metadata.get('format_version')!r}; this release reads "
            f"{FORMAT_VERSION!r}"
        )
    text = metadata.get("manifest", "")
    if hashlib.sha256(text.encode()).hexdigest() != metadata.get("manifest_sha256"):
        raise ArtifactError(
            f"{path} is damaged: its manifest does not have the digest it should have"
        )
    manifest = json.loads(text)
    digests = manifest["tensors"]
    if digests.keys() != tensors.keys():
        odd = sorted(digests.keys() ^ tensors.keys())
        raise ArtifactError(f"{path} is damaged: tensors and manifest disagree about {odd}")
    for name, tensor in tensors.items():
        if hashlib.sha256(tensor.tobytes()).hexdigest() != digests[name]:
            raise ArtifactError(
                f"{path} is damaged: {name} does not have the digest it should have"
            )
    return Artifact(manifest, tensors)
