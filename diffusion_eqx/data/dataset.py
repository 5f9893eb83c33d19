"""Labelled examples in memory, and the endless stream of training batches made of them."""

from dataclasses import dataclass
from typing import Protocol

import grain
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8

from diffusion_eqx._typing import Images


class Dataset(Protocol):
    """What training asks of a data set."""

    def batches(self, batch_size: int, *, seed: int) -> "Batches":
        """An endless, shuffled stream in which batch i is a pure function of `seed` and i."""
        ...


@dataclass(frozen=True)
class ImageDataset:
    """Images (N, H, W, C), uint8 or float in [−1, 1], with integer labels (N,) or None.

    **Raises:** `ValueError` if shapes, types or ranges are others: float images outside [−1, 1] are
    the most common reason for a diffusion model that does not learn.
    """

    images: np.ndarray
    labels: np.ndarray | None = None
    class_names: tuple[str, ...] = ()

    def __post_init__(self):
        images, labels = self.images, self.labels
        if images.ndim != 4 or len(images) == 0:
            raise ValueError(f"images must be a non-empty (N, H, W, C) array; got {images.shape}")
        if images.dtype != np.uint8:
            if not np.issubdtype(images.dtype, np.floating):
                raise ValueError(f"images must be uint8 or floating point; got {images.dtype}")
            low, high = float(images.min()), float(images.max())
            if not (low >= -1.0 and high <= 1.0):
                raise ValueError(
                    f"floating-point images must lie in [-1, 1]; these lie in [{low}, {high}]: scale "
                    "them, e.g. images / 127.5 - 1"
                )
        _check_labels(labels, len(images))

    def __len__(self) -> int:
        return len(self.images)

    @property
    def num_classes(self) -> int | None:
        """One more than the largest label, or None without labels."""
        return None if self.labels is None else int(self.labels.max()) + 1

    def batches(self, batch_size: int, *, seed: int) -> "Batches":
        """An endless, shuffled stream in which batch i is a pure function of `seed` and i.

        Each epoch has an order of its own. Since any batch can be asked for by number, resuming a run
        needs no more than the number of the next step.
        """
        return _shuffled(self.images, self.labels, batch_size, seed)


@dataclass(frozen=True)
class ArrayDataset:
    """Examples (N, …) of any shape and range, such as latents or points, with integer labels (N,) or None.

    **Raises:** `ValueError` if the examples are not floating-point numbers, or not all finite.
    """

    examples: np.ndarray
    labels: np.ndarray | None = None

    def __post_init__(self):
        examples = self.examples
        if (
            examples.ndim < 2
            or len(examples) == 0
            or not np.issubdtype(examples.dtype, np.floating)
        ):
            raise ValueError(
                f"examples must be a non-empty floating-point (N, …) array; got {examples.dtype} of shape "
                f"{examples.shape}"
            )
        if not np.isfinite(examples).all():
            raise ValueError("some examples are not finite numbers")
        _check_labels(self.labels, len(examples))

    def __len__(self) -> int:
        return len(self.examples)

    def batches(self, batch_size: int, *, seed: int) -> "Batches":
        """As of `ImageDataset`; the examples stand under `images`, as training reads them."""
        return _shuffled(self.examples, self.labels, batch_size, seed)


def _check_labels(labels: np.ndarray | None, count: int) -> None:
    if labels is not None and (
        labels.shape != (count,) or not np.issubdtype(labels.dtype, np.integer)
    ):
        raise ValueError(
            f"labels must be {count} integers, one for each image; got {labels.dtype} of shape "
            f"{labels.shape}"
        )


class Batches:
    """Training batches by number: a dictionary of `images` (B, …) and, if there are, `labels`."""

    def __init__(self, stream: grain.MapDataset):
        self._stream = stream

    def __getitem__(self, number: int) -> dict[str, np.ndarray]:
        batch = self._stream[number]
        assert isinstance(batch, dict)
        return batch


def _shuffled(images: np.ndarray, labels: np.ndarray | None, batch_size: int, seed: int) -> Batches:
    stream = grain.MapDataset.source(_Rows(images, labels)).seed(seed).shuffle().repeat()
    return Batches(stream.batch(batch_size))


class _Rows:
    """The examples as grain reads them: one dictionary for each."""

    def __init__(self, images: np.ndarray, labels: np.ndarray | None):
        self._images = images
        self._labels = labels

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index) -> dict[str, np.ndarray]:
        row = {"images": self._images[index]}
        if self._labels is not None:
            row["labels"] = self._labels[index]
        return row


def to_unit_range(
    images: UInt8[Array, "*shape"] | Float[Array, "*shape"],
) -> Float[Array, "*shape"]:
    """uint8 0 … 255 to float32 −1 … 1; floats pass unchanged."""
    if images.dtype == jnp.uint8:
        return images.astype(jnp.float32) / 127.5 - 1.0
    return images.astype(jnp.float32)


def to_bytes(images: Images | np.ndarray) -> np.ndarray:
    """Float images in [−1, 1] to uint8 0 … 255, rounding to nearest and clipping."""
    return np.clip(np.round((np.asarray(images) + 1.0) * 127.5), 0, 255).astype(np.uint8)
