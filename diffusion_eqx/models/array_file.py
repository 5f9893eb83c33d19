"""The arrays of a PyTree as one safetensors file, with what describes them in its metadata."""

import contextlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import safetensors
import safetensors.numpy

# The one entry of a file's metadata that holds all of it, as JSON.
_METADATA = "diffusion_eqx"


# What else of this library may have been taken for the file wanted.
_REMEDY = {
    "diffusion_eqx.sampler": "; diffusion-sampler draws from it",
    "diffusion_eqx.model": "; load_model reads it",
    "diffusion_eqx.classifier": "; load_classifier reads it",
    "diffusion_eqx.reference": "; evaluation.load_reference reads it",
}


class ModelFileError(ValueError):
    """The file is not a model of this library, or does not fit its own configuration."""


def named_arrays(tree: Any) -> dict[str, jax.Array]:
    """All arrays of a PyTree by their place in it, e.g. `backbone.conv_in.weight`."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(eqx.filter(tree, eqx.is_array))
    return {path_name(path): leaf for path, leaf in leaves}


def path_name(path: tuple[Any, ...]) -> str:
    """A PyTree path as attributes and indices joined by dots."""
    return jax.tree_util.keystr(path, simple=True, separator=".")


def write_arrays(
    path: str | Path, arrays: Mapping[str, jax.Array | np.ndarray], metadata: dict[str, str]
) -> None:
    """Write named arrays as one safetensors file, which appears whole or not at all.

    - `metadata`: has a `format` and its `format_version`.

    The same arrays and metadata give the same bytes.
    """
    path = Path(path)
    stored = {name: np.asarray(a) for name, a in arrays.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    # The library writes several entries in an order of chance; one entry has no order.
    text = json.dumps(metadata, sort_keys=True)
    partial.write_bytes(safetensors.numpy.save(stored, {_METADATA: text}))
    os.replace(partial, path)


def read_arrays(
    path: str | Path, format_name: str, version: str
) -> tuple[dict[str, str], dict[str, np.ndarray]]:
    """Metadata and named arrays of a file written by `write_arrays` in that format and version.

    **Raises:** `FileNotFoundError`; `ModelFileError` if the file is something else, of another version, or
    damaged.
    """
    with _opened(path) as file:
        metadata = _checked_metadata(file, path, format_name, version)
        return metadata, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


def read_metadata(path: str | Path, format_name: str, version: str) -> dict[str, str]:
    """The metadata alone of such a file; its arrays are not read.

    **Raises:** as `read_arrays`.
    """
    with _opened(path) as file:
        return _checked_metadata(file, path, format_name, version)


@contextlib.contextmanager
def _opened(path: str | Path) -> Iterator[Any]:
    path = Path(path)
    if not path.is_file():
        what = f"{path} is a folder, where the file of a model is wanted"
        raise FileNotFoundError(what if path.is_dir() else f"there is no model file {path}")
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            yield file
    except safetensors.SafetensorError as error:
        raise ModelFileError(f"{path} is damaged or not a safetensors file: {error}") from error


def _checked_metadata(
    file: Any, path: str | Path, format_name: str, version: str
) -> dict[str, str]:
    found = file.metadata() or {}
    # The first files had an entry for each name.
    metadata = json.loads(found[_METADATA]) if _METADATA in found else found
    found_format = str(metadata.get("format"))
    if found_format != format_name:
        raise ModelFileError(
            f"{path} is not a {format_name.replace('.', ' ')}: its format is "
            f"{found_format!r}, expected {format_name!r}{_REMEDY.get(found_format, '')}"
        )
    if metadata.get("format_version") != version:
        raise ModelFileError(
            f"{path} has format version {metadata.get('format_version')}; this release of "
            f"diffusion_eqx reads version {version}"
        )
    return metadata


def fill(
    tree: Any,
    arrays: dict[str, np.ndarray],
    path: str | Path,
    *,
    rename: Callable[[str], str] = str,
) -> Any:
    """A PyTree of shapes (from `eqx.filter_eval_shape`) with the arrays that `path` held in their places.

    Floating-point arrays keep the precision of the file, whatever that of the shapes.

    `rename`: from an array's place, as `named_arrays` calls it, to its name in the file.

    **Raises:** `ModelFileError` if an array is lacking, left over, or of another shape or type.
    """

    def leaf(place: tuple[Any, ...], expected: Any) -> Any:
        if not isinstance(expected, jax.ShapeDtypeStruct):
            return expected
        name = rename(path_name(place))
        if name not in arrays:
            raise ModelFileError(f"{path} lacks the array {name} that its configuration asks for")
        found = arrays.pop(name)
        both_floating = all(jnp.issubdtype(a.dtype, jnp.floating) for a in (found, expected))
        if found.shape != expected.shape or not (both_floating or found.dtype == expected.dtype):
            raise ModelFileError(
                f"{path}: {name} is {found.dtype}{found.shape}; its configuration, or the part given for "
                f"it, asks for {expected.dtype}{expected.shape}"
            )
        return jnp.asarray(found)

    arrays = dict(arrays)
    filled = jax.tree_util.tree_map_with_path(leaf, tree)
    if arrays:
        raise ModelFileError(f"{path} holds arrays that its model does not have: {sorted(arrays)}")
    return filled
