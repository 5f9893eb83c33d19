"""The endless stream of shuffled training batches, by the numbers of their examples."""

from typing import Any

import numpy as np

from diffusion_eqx.data.base import PartialBatches


def shuffled_batches(
    examples: np.ndarray, labels: np.ndarray | None, batch_size: int, seed: int
) -> PartialBatches:
    """Batches of arrays in memory, whose examples are those of `shuffled_rows`.

    **Raises:** as `shuffled_rows`.
    """
    return _Gathered(examples, labels, shuffled_rows(len(examples), batch_size, seed))


def shuffled_rows(count: int, batch_size: int, seed: int) -> Any:
    """The numbers of the examples of batch i, (batch_size,), under [i]; each epoch has an order of its own.

    They depend on `seed` and i only: a run that resumes at step i asks for batch i, and needs no other
    state.

    **Raises:** `ValueError` if `batch_size` or `seed` is not a whole number in its range.
    """
    import grain  # Loading it takes seconds.

    if not isinstance(batch_size, int | np.integer) or batch_size < 1:
        raise ValueError(f"batch_size must be a whole number of at least 1; got {batch_size!r}")
    if not isinstance(seed, int | np.integer) or seed < 0:
        raise ValueError(f"seed must be a whole number of at least 0; got {seed!r}")
    order = grain.MapDataset.range(count).seed(int(seed)).shuffle().repeat()
    return order.batch(int(batch_size))


class _Gathered:
    """Batches of the rows that a stream of index arrays names."""

    def __init__(self, examples: np.ndarray, labels: np.ndarray | None, rows: Any):
        self._examples = examples
        self._labels = labels
        self._rows = rows

    def __getitem__(self, number: int) -> dict[str, np.ndarray]:
        return self.part(number, slice(None))

    def part(self, number: int, rows: slice) -> dict[str, np.ndarray]:
        """Some rows of batch `number`; no other is read."""
        picked = self._rows[number][rows]
        batch = {"images": self._examples[picked]}
        if self._labels is not None:
            batch["labels"] = self._labels[picked]
        return batch
