"""Examples in memory that are no images."""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from diffusion_eqx.data.base import Batches
from diffusion_eqx.data.batches import shuffled_batches
from diffusion_eqx.data.labels import checked_labels, count_classes, describe_classes
from diffusion_eqx.data.pixels import check_finite


class ArrayDataset:
    """Examples of any shape and range, such as latents or points, and the class of each.

    - `examples`: (N, …), floating point; anything that NumPy makes such an array of.
    - `labels`, `class_names`: as of `ImageDataset`.

    **Raises:** `ValueError` if there are no examples, if they are not finite floating-point numbers, or if
    labels or names are not as `ImageDataset` says.
    """

    examples: np.ndarray
    labels: np.ndarray | None
    class_names: tuple[str, ...]

    def __init__(self, examples: Any, labels: Any = None, class_names: Sequence[str] = ()):
        try:
            found = np.asarray(examples)
        except ValueError:
            raise ValueError("examples must all have one shape; these have several") from None
        if found.ndim < 2 or found.size == 0 or not jnp.issubdtype(found.dtype, jnp.floating):
            raise ValueError(
                f"examples must be a non-empty floating-point (N, …) array; got {found.dtype} of shape "
                f"{found.shape}"
            )
        check_finite(found, "examples")
        self.examples = found
        self.labels, self.class_names = checked_labels(labels, class_names, len(found))

    def __len__(self) -> int:
        return len(self.examples)

    def __repr__(self) -> str:
        return (
            f"ArrayDataset({len(self)} examples of shape {self.shape}, {self.examples.dtype}, "
            f"{describe_classes(self.labels, self.class_names)})"
        )

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one example."""
        return self.examples.shape[1:]

    @property
    def num_classes(self) -> int | None:
        """The number of names, or without names one more than the largest label; None without labels."""
        return count_classes(self.labels, self.class_names)

    def batches(self, batch_size: int, *, seed: int) -> Batches:
        """An endless, shuffled stream of batches. Batch i depends on `seed` and i only.

        The examples of a batch are called `images`, as training reads them.

        **Raises:** `ValueError` if `batch_size` or `seed` is not a whole number in its range.
        """
        return shuffled_batches(self.examples, self.labels, batch_size, seed)
