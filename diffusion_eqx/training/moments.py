"""The moments of the latents of a data set, encoded once and kept on disk."""

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from diffusion_eqx._typing import Images
from diffusion_eqx.data import ImagesInMemory, to_unit_range
from diffusion_eqx.nn import AbstractAutoencoder
from diffusion_eqx.precision import in_precision_of
from diffusion_eqx.training.devices import wait_for_all, writes
from diffusion_eqx.training.digest import digest
from diffusion_eqx.training.identity import describe_network

_log = logging.getLogger(__name__)

_RECORD = "moments.json"
# A change of what is written here makes all that is kept void.
_FORMAT = 1
# With examples held out there is a second set of images, for the scale of the latents.
_KEPT = 2


class Moments(NamedTuple):
    """What an encoder says of the latents of each image, before any scale factor.

    - `mean`: (N, height, width, channels), a memory map where it is kept on disk.
    - `log_variance`: of the same shape, or None where the encoder gives the mean alone.
    """

    mean: np.ndarray
    log_variance: np.ndarray | None


def encode_moments(
    autoencoder: AbstractAutoencoder,
    data: ImagesInMemory,
    *,
    batch_size: int = 500,
    cache: str | os.PathLike[str] | None = None,
) -> Moments:
    """The moments of the latents of all images, some at a time; samples can be drawn from them at any time.

    - `cache`: a folder in which they are kept, under a digest of the autoencoder's weights and of all
      images. The same call again maps them into memory; another autoencoder or data set makes new ones,
      and the newest two are kept. Files that are damaged are made anew, and the log says so. Without room
      on the disk they are held in memory. None: always in memory.

    Several processes write once, and read the same folder.
    """
    autoencoder = eqx.nn.inference_mode(autoencoder)

    def make(put: Callable[[str, int, np.ndarray], None]) -> None:
        for begin, part in _encoded(autoencoder, data.images, batch_size):
            for name, rows in part.items():
                put(name, begin, rows)

    if cache is None:
        return _in_memory(make, len(data))
    key = _key(autoencoder, data.images)
    place = Path(cache) / key[:16]
    if writes() and _found(place, key) is None:
        try:
            _write(place, key, make, len(data))
        except OSError as error:
            _log.warning("the latents cannot be kept in %s, and stay in memory: %s", cache, error)
    wait_for_all("latents")
    found = _found(place, key)
    return _in_memory(make, len(data)) if found is None else found


def _key(autoencoder: AbstractAutoencoder, images: np.ndarray) -> str:
    """What made the moments, as 64 hexadecimal digits."""
    content = hashlib.sha256()
    for begin in range(0, len(images), 1024):
        content.update(np.ascontiguousarray(images[begin : begin + 1024]).data)
    made_of = {
        "format": _FORMAT,
        "structure": describe_network(autoencoder)["structure"],
        "weights": digest(eqx.filter(autoencoder, eqx.is_array)),
        "images": [list(images.shape), str(images.dtype), content.hexdigest()],
        "dtype": str(jax.dtypes.canonicalize_dtype(np.float64)),
    }
    return hashlib.sha256(json.dumps(made_of, sort_keys=True).encode()).hexdigest()


def _encoded(
    autoencoder: AbstractAutoencoder, images: np.ndarray, batch_size: int
) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
    """(first row, moments by name) of one part of the images after the other."""

    @eqx.filter_jit
    def moments(autoencoder: AbstractAutoencoder, images: Array) -> Array:
        def stacked(x: Images) -> Array:
            found = autoencoder.encode_distribution(x)
            return jnp.stack([moment for moment in found if moment is not None], axis=1)

        return in_precision_of(autoencoder, stacked, to_unit_range(images))

    for begin in range(0, len(images), batch_size):
        part = moments(autoencoder, jax.device_put(images[begin : begin + batch_size]))
        rows = np.moveaxis(np.asarray(part), 1, 0)
        # Without a variance there is one moment only.
        yield begin, dict(zip(Moments._fields, rows, strict=False))


def _in_memory(
    make: Callable[[Callable[[str, int, np.ndarray], None]], None], count: int
) -> Moments:
    arrays: dict[str, np.ndarray] = {}

    def put(name: str, begin: int, rows: np.ndarray) -> None:
        if name not in arrays:
            arrays[name] = np.empty((count, *rows.shape[1:]), rows.dtype)
        arrays[name][begin : begin + len(rows)] = rows

    make(put)
    return Moments(arrays["mean"], arrays.get("log_variance"))


def _write(
    place: Path,
    key: str,
    make: Callable[[Callable[[str, int, np.ndarray], None]], None],
    count: int,
) -> None:
    """Write the moments into a folder, which appears whole or not at all.

    **Raises:** `OSError` if there is no room.
    """
    place.parent.mkdir(parents=True, exist_ok=True)
    partial = place.with_name(f".{place.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    maps: dict[str, np.memmap] = {}

    def put(name: str, begin: int, rows: np.ndarray) -> None:
        if name not in maps:
            shape = (count, *rows.shape[1:])
            # A map of a file that cannot grow would end the process by a signal.
            _check_room(partial, rows.itemsize * int(np.prod(shape)))
            maps[name] = np.lib.format.open_memmap(
                partial / f"{name}.npy", mode="w+", dtype=rows.dtype, shape=shape
            )
        maps[name][begin : begin + len(rows)] = rows

    try:
        make(put)
        for array in maps.values():
            array.flush()
        record = {
            "key": key,
            "files": {f"{name}.npy": _digest(partial / f"{name}.npy") for name in maps},
        }
        (partial / _RECORD).write_text(json.dumps(record, indent=2) + "\n")
        shutil.rmtree(place, ignore_errors=True)
        partial.rename(place)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    _drop_old(place.parent)


def _check_room(folder: Path, size: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < size:
        raise OSError(f"{free / 1e6:.0f} MB are free, and {size / 1e6:.0f} MB are needed")


def _drop_old(cache: Path) -> None:
    records = sorted(cache.glob(f"*/{_RECORD}"), key=lambda path: path.stat().st_mtime)
    for record in records[:-_KEPT]:
        shutil.rmtree(record.parent, ignore_errors=True)


def _found(place: Path, key: str) -> Moments | None:
    """The moments in a folder; None if there are none, or they are not what was written."""
    if not (place / _RECORD).exists():
        return None
    try:
        record = json.loads((place / _RECORD).read_text())
        if record["key"] != key:
            raise ValueError("they are of another autoencoder or other images")
        for name, expected in record["files"].items():
            if _digest(place / name) != expected:
                raise ValueError(f"{name} is not what was written")
        arrays = {Path(name).stem: np.load(place / name, mmap_mode="r") for name in record["files"]}
        return Moments(arrays["mean"], arrays.get("log_variance"))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        _log.warning("the latents in %s are damaged, and are made anew: %s", place, error)
        return None


def _digest(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
