"""Sources that give any example by its number: of Hugging Face, tfds, grain, or anybody."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from diffusion_eqx.data.base import PartialBatches
from diffusion_eqx.data.batches import shuffled_rows
from diffusion_eqx.data.labels import checked_labels, count_classes, describe_classes
from diffusion_eqx.data.probe import PROBED, check_alike, probe
from diffusion_eqx.data.record import Example, RecordReader


class SourceDataset:
    """Examples that are read and decoded as they are needed, by number. `as_dataset` makes it.

    Batch i depends on the seed and on i only. Several threads read the examples of a batch.

    - `source`: has a length, and gives record i as `source[i]`, the same each time.
    - `reader`: makes an example of a record.
    - `labels`: (N,) of all examples, or None for those in the records. The classes of all examples are then
      read once, when they are first asked for.
    - `class_names`, `num_classes`: of the classes, () and None where they are not known.

    **Raises:** `ValueError` if there are no examples; if the first ones are no images of one shape and
    type; if labels are not as `ImageDataset` says.
    """

    def __init__(
        self,
        source: Any,
        reader: RecordReader,
        *,
        labels: np.ndarray | Callable[[], np.ndarray] | None = None,
        class_names: Sequence[str] = (),
        num_classes: int | None = None,
    ):
        self._source, self._reader = source, reader
        self._count = len(source)
        if self._count < 1:
            raise ValueError("the source has no examples")
        numbers = sorted({k * (self._count - 1) // (PROBED - 1) for k in range(PROBED)})
        found = [self._read(number) for number in numbers]
        self._shape, self._dtype = probe(found, [_place(number) for number in numbers])
        self._labels = labels
        self._known: np.ndarray | None = None
        self._labelled = labels is not None or found[0].label is not None
        self._names = tuple(class_names) if self._labelled else ()
        self._classes = num_classes

    def __len__(self) -> int:
        return self._count

    def __repr__(self) -> str:
        # Nothing is read for a text.
        classes = "labels" if self._labelled else "no labels"
        if self._labelled and self._names:
            classes = describe_classes(np.zeros(1, np.int32), self._names)
        source = type(self._source).__name__
        return f"SourceDataset({source}, {len(self)} images of shape {self.shape}, {classes})"

    @property
    def shape(self) -> tuple[int, int, int]:
        """(height, width, channels) of one image."""
        return self._shape

    @property
    def class_names(self) -> tuple[str, ...]:
        """The names of the classes, or ()."""
        return self._names

    @property
    def num_classes(self) -> int | None:
        """As given, or the number of names, or one more than the largest label; None without labels."""
        if not self._labelled:
            return None
        return self._classes or len(self._names) or count_classes(self.labels, ())

    @property
    def labels(self) -> np.ndarray | None:
        """The class of each example, (N,), or None.

        **Raises:** `ValueError` as `ImageDataset`, or if a record cannot be read.
        """
        if not self._labelled:
            return None
        if self._known is None:
            self._known, _ = checked_labels(self._all_labels(), self._names, len(self))
            if self._classes is not None and self._known is not None:
                greatest = int(self._known.max())
                if greatest >= self._classes:
                    raise ValueError(
                        f"labels go up to {greatest}, and num_classes={self._classes}: give "
                        f"num_classes={greatest + 1}"
                    )
        return self._known

    def batches(self, batch_size: int, *, seed: int) -> PartialBatches:
        """An endless, shuffled stream of batches. Batch i depends on `seed` and i only.

        Each epoch has an order of its own.

        **Raises:** `ValueError` if `batch_size` or `seed` is not a whole number in its range. A batch
        raises it for a record that cannot be read, or of another shape.
        """
        rows = shuffled_rows(len(self), batch_size, seed)
        return _ReadBatches(rows, self._example, self.labels)

    def _example(self, number: int) -> Example:
        example = self._read(number)
        check_alike(example.image, self._shape, self._dtype, _place(number))
        return example

    def _read(self, number: int) -> Example:
        try:
            record = self._source[number]
        except Exception as error:
            raise ValueError(f"{_place(number)} cannot be read: {error}") from error
        return self._reader(record, _place(number))

    def _all_labels(self) -> Any:
        if callable(self._labels):
            return self._labels()
        if self._labels is not None:
            return self._labels
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            found = [example.label for example in pool.map(self._example, range(len(self)))]
        missing = [number for number, label in enumerate(found) if label is None]
        if missing:
            raise ValueError(f"{len(missing)} examples have no label, the first is {missing[0]}")
        return np.asarray(found)


def _place(number: int) -> str:
    return f"example {number}"


class _ReadBatches:
    """Batches of the rows that a stream of index arrays names, read by several threads."""

    def __init__(self, rows: Any, example: Callable[[int], Example], labels: np.ndarray | None):
        self._rows, self._example, self._labels = rows, example, labels
        # Its threads end when these batches are no longer used.
        self._pool = ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="decode")

    def __getitem__(self, number: int) -> dict[str, np.ndarray]:
        return self.part(number, slice(None))

    def part(self, number: int, rows: slice) -> dict[str, np.ndarray]:
        """Some rows of batch `number`; no other is read."""
        picked = self._rows[number][rows]
        images = [example.image for example in self._pool.map(self._example, picked.tolist())]
        batch = {"images": np.stack(images)}
        if self._labels is not None:
            batch["labels"] = self._labels[picked]
        return batch
