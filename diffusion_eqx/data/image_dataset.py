"""Images in memory."""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from diffusion_eqx.data.base import Batches
from diffusion_eqx.data.batches import shuffled_batches
from diffusion_eqx.data.labels import checked_labels, count_classes, describe_classes
from diffusion_eqx.data.pixels import check_finite


class ImageDataset:
    """Images, and the class of each.

    - `images`: (N, height, width, channels), uint8 0 … 255 or float in [−1, 1]; anything that NumPy makes
      such an array of.
    - `labels`: N integers from 0 on, or None.
    - `class_names`: the names of classes 0, 1, …, or () where they have none. There may be more names than
      `labels` uses, since a part of a data set may lack a class.

    **Raises:** `ValueError` if shape or type are others; if there are no images; if floating-point images
    are not finite, leave [−1, 1], or lie in [0, 1], as images that nobody has scaled do; if labels or names
    are not as said above.
    """

    images: np.ndarray
    labels: np.ndarray | None
    class_names: tuple[str, ...]

    def __init__(self, images: Any, labels: Any = None, class_names: Sequence[str] = ()):
        self.images = _checked_images(images)
        self.labels, self.class_names = checked_labels(labels, class_names, len(self.images))

    def __len__(self) -> int:
        return len(self.images)

    def __repr__(self) -> str:
        return (
            f"ImageDataset({len(self)} images of shape {self.shape}, {self.images.dtype}, "
            f"{describe_classes(self.labels, self.class_names)})"
        )

    @property
    def shape(self) -> tuple[int, int, int]:
        """(height, width, channels) of one image."""
        _, height, width, channels = self.images.shape
        return height, width, channels

    @property
    def num_classes(self) -> int | None:
        """The number of names, or without names one more than the largest label; None without labels."""
        return count_classes(self.labels, self.class_names)

    def batches(self, batch_size: int, *, seed: int) -> Batches:
        """An endless, shuffled stream of batches. Batch i depends on `seed` and i only.

        Each epoch has an order of its own.

        **Raises:** `ValueError` if `batch_size` or `seed` is not a whole number in its range.
        """
        return shuffled_batches(self.images, self.labels, batch_size, seed)


def _checked_images(images: Any) -> np.ndarray:
    try:
        found = np.asarray(images)
    except ValueError:
        raise ValueError("images must all have one shape; these have several") from None
    if found.ndim != 4 or found.size == 0:
        hint = "; add the axis of channels, images[..., None]" if found.ndim == 3 else ""
        raise ValueError(f"images must be a non-empty (N, H, W, C) array; got {found.shape}{hint}")
    if found.dtype == np.uint8:
        return found
    if not jnp.issubdtype(found.dtype, jnp.floating):
        raise ValueError(f"images must be uint8 or floating point; got {found.dtype}")
    check_finite(found, "images")
    low, high = float(found.min()), float(found.max())
    if low >= -1.0 and high <= 1.0 and low < 0.0:
        return found
    if low >= 0.0:
        remedy = "scale them by " + ("2 * images - 1" if high <= 1.0 else "images / 127.5 - 1")
    else:
        remedy = "scale or clip them"
    raise ValueError(
        f"floating-point images must lie in [-1, 1]; these lie in [{low:g}, {high:g}]: {remedy} "
        "(ArrayDataset takes numbers of any range)"
    )
