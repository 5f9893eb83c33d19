"""The endless stream of shuffled training batches of arrays in memory."""

from typing import Any

import numpy as np

from diffusion_eqx.data.base import Batches


def shuffled_batches(
    examples: np.ndarray, labels: np.ndarray | None, batch_size: int, seed: int
) -> Batches:
    """Batches in which batch i depends on `seed` and i only; each epoch has an order of its own.

    A run that resumes at step i asks for batch i, and needs no other state.

    **Raises:** `ValueError` if `batch_size` or `seed` is not a whole number in its range.
    """
    import grain  # Loading it takes seconds.

    if not isinstance(batch_size, int | np.integer) or batch_size < 1:
        raise ValueError(f"batch_size must be a whole number of at least 1; got {batch_size!r}")
    if not isinstance(seed, int | np.integer) or seed < 0:
        raise ValueError(f"seed must be a whole number of at least 0; got {seed!r}")
    order = grain.MapDataset.range(len(examples)).seed(int(seed)).shuffle().repeat()
    return _Gathered(examples, labels, order.batch(int(batch_size)))


class _Gathered:
    """Batches of the rows that a stream of index arrays names."""

    def __init__(self, examples: np.ndarray, labels: np.ndarray | None, rows: Any):
        self._examples = examples
        self._labels = labels
        self._rows = rows

    def __getitem__(self, number: int) -> dict[str, np.ndarray]:
        picked = self._rows[number]
        batch = {"images": self._examples[picked]}
        if self._labels is not None:
            batch["labels"] = self._labels[picked]
        return batch
