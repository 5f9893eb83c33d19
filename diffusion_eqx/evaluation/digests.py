"""Digests by which pixels and arrays are known again."""

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

import jax
import numpy as np


def digest_of_arrays(
    arrays: Mapping[str, jax.Array | np.ndarray], metadata: Mapping[str, str] | None = None
) -> str:
    """SHA-256 of names, types, shapes and bytes of arrays, and of what describes them."""
    found = hashlib.sha256()
    for name, text in sorted((metadata or {}).items()):
        found.update(repr((name, text)).encode())
    for name, array in sorted(arrays.items()):
        array = np.asarray(array)
        found.update(repr((name, str(array.dtype), array.shape)).encode())
        found.update(_bytes(array))
    return found.hexdigest()


class PixelDigest:
    """SHA-256 of the pixels of images that come in batches; how they are divided changes nothing."""

    def __init__(self):
        self._found = hashlib.sha256()
        self._began = False

    def passing(self, batches: Iterable[np.ndarray]) -> Iterable[np.ndarray]:
        """The batches as they are, each counted in on its way."""
        for images in batches:
            if not self._began:
                self._found.update(repr((str(images.dtype), images.shape[1:])).encode())
                self._began = True
            self._found.update(_bytes(images))
            yield images

    @property
    def text(self) -> str:
        """The digest of all that has passed, in hexadecimal."""
        return self._found.hexdigest()


def _bytes(array: np.ndarray) -> Any:
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8)
