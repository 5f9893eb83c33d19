"""What training and evaluation ask of a data set, whoever wrote it."""

from typing import Any, Protocol, runtime_checkable

import numpy as np


@runtime_checkable
class Batches(Protocol):
    """Training batches by number; there is no last one."""

    def __getitem__(self, number: int) -> dict[str, np.ndarray]:
        """Batch `number`: `images` (batch, …) and, for a labelled data set, `labels` (batch,)."""
        ...


@runtime_checkable
class PartialBatches(Batches, Protocol):
    """Batches of which rows can be read alone. Each of several processes then reads its own rows only."""

    def part(self, number: int, rows: slice) -> dict[str, np.ndarray]:
        """The `rows` of batch `number`, equal to those of the whole batch."""
        ...


@runtime_checkable
class ResumableBatches(Batches, Protocol):
    """Batches that come in a row, as a stream gives them.

    Any batch can be asked for; to go back, or far ahead, the stream is read again from its start, unless
    `restore` says where it was.
    """

    def state(self) -> dict[str, Any] | None:
        """JSON of what follows the batch that was read last; None if the stream cannot say."""
        ...

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a state."""
        ...


@runtime_checkable
class Dataset(Protocol):
    """Examples that a model can be trained on. Any class with these members is a data set.

    - `shape`: the shape of one example, (height, width, channels) for images.
    - `num_classes`: the number of classes, or None without labels.
    - `class_names`: the name of each class, or () where classes have no names.
    - `labels`: the integer class of each example, (N,), or None: without labels, or where they are known
      only when an example is read, as those of a stream are.
    """

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one example, (height, width, channels) for images."""
        ...

    @property
    def num_classes(self) -> int | None:
        """The number of classes, or None without labels."""
        ...

    @property
    def class_names(self) -> tuple[str, ...]:
        """The name of each class, or () where classes have no names."""
        ...

    @property
    def labels(self) -> np.ndarray | None:
        """The integer class of each example, (N,), or None if there are none or they are not known yet."""
        ...

    def __len__(self) -> int: ...

    def batches(self, batch_size: int, *, seed: int) -> Batches:
        """An endless, shuffled stream of batches. Batch i depends on `seed` and i only."""
        ...


@runtime_checkable
class ImagesInMemory(Dataset, Protocol):
    """A data set that holds all its images as one array, such as `ImageDataset` and `ImageFolder`.

    - `images`: (N, height, width, channels), uint8 or float in [−1, 1].
    """

    @property
    def images(self) -> np.ndarray:
        """All images, (N, height, width, channels), uint8 or float in [−1, 1]."""
        ...
