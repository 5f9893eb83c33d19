"""Pixels as bytes 0 … 255 and as numbers −1 … 1."""

from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

_ArrayT = TypeVar("_ArrayT", np.ndarray, jax.Array)


def to_unit_range(images: _ArrayT) -> _ArrayT:
    """uint8 0 … 255 to floats −1 … 1: images / 127.5 − 1. Floats keep their values.

    The result has jax's default float type: float32, or float64 where jax is set so. A NumPy array gives a
    NumPy array.
    """
    pixels: Any = images.astype(jnp.result_type(float))
    return pixels / 127.5 - 1.0 if images.dtype == np.uint8 else pixels


def to_bytes(images: Any) -> np.ndarray:
    """Floats −1 … 1 to uint8 0 … 255, rounded to nearest and clipped; uint8 passes unchanged.

    `images`: an array of any shape, of jax or NumPy.

    **Raises:** `ValueError` if a number is not finite.
    """
    pixels = np.asarray(images)
    if pixels.dtype == np.uint8:
        return pixels
    pixels = pixels.astype(np.float32)
    check_finite(pixels, "images")
    return np.clip(np.round((pixels + 1.0) * 127.5), 0, 255).astype(np.uint8)


def check_finite(examples: np.ndarray, what: str) -> None:
    """Refuse an array that holds NaN or infinity, and say where the first is found.

    **Raises:** `ValueError`.
    """
    finite = np.isfinite(examples)
    if finite.all():
        return
    if examples.ndim < 2:
        raise ValueError(f"{what} must be finite numbers; {int((~finite).sum())} are not")
    bad = np.flatnonzero(~finite.reshape(len(examples), -1).all(axis=1))
    raise ValueError(
        f"{what} must be finite numbers; {len(bad)} of {len(examples)} hold NaN or infinity, the first "
        f"is number {bad[0]}"
    )
