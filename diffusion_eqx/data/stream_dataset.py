"""Sources that give their examples one after the other: tf.data, streams of Hugging Face and grain."""

import itertools
import logging
from collections.abc import Callable, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np

from diffusion_eqx.data.base import ResumableBatches
from diffusion_eqx.data.labels import checked_labels, describe_classes
from diffusion_eqx.data.probe import PROBED, check_alike, probe
from diffusion_eqx.data.record import Example, RecordReader

_log = logging.getLogger(__name__)


@runtime_checkable
class Stream(Protocol):
    """One pass through a source after the other, without end."""

    def __next__(self) -> Any:
        """The next record."""
        ...

    def state(self) -> dict[str, Any] | None:
        """JSON of where it is, or None if it cannot say."""
        ...

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from where a stream of the same source was."""
        ...


class StreamDataset:
    """Examples in the order in which a stream gives them. `as_dataset` makes it.

    Batch i is that of the stream; the seed of a training does not change it. Each process of a training
    reads the whole stream, and keeps its own rows of each batch.

    - `open`: begins the stream anew.
    - `reader`: makes an example of a record.
    - `length`: the number of examples of one pass.
    - `class_names`, `num_classes`: of the classes.
    - `exact`: whether a stream that begins anew gives the same examples again. The first ones are read
      twice to see whether it does. Otherwise a batch that was given is never given again, and a run goes
      on with other examples than it would have seen.

    **Raises:** `ValueError` if there are no examples; if the first ones are no images of one shape and
    type; if an exact stream gives others the second time; if there are labels without a number of classes.
    """

    labels: None = None

    def __init__(
        self,
        open: Callable[[], Stream],
        reader: RecordReader,
        *,
        length: int,
        class_names: Sequence[str] = (),
        num_classes: int | None = None,
        exact: bool = True,
    ):
        self._open, self._reader, self._count, self._exact = open, reader, length, exact
        self._names = tuple(class_names)
        checked_labels(np.zeros(1, int), self._names, 1)
        first = self._first()
        self._shape, self._dtype = probe(first, [_place(number) for number in range(len(first))])
        self._labelled = first[0].label is not None
        self._classes = num_classes or len(self._names) or None
        if self._labelled and self._classes is None:
            raise ValueError(
                "the labels of a stream are not known beforehand: give class_names= or num_classes=, or "
                "read no labels by label=None"
            )
        if exact and not all(map(_equal, first, self._first())):
            raise ValueError(
                "the stream gave other examples when it was read a second time, so that a run that was "
                "stopped would not go on as it would have: give its shuffling and its random changes a "
                'seed, or accept that by resume="approximate"'
            )

    def __len__(self) -> int:
        return self._count

    def __repr__(self) -> str:
        classes = describe_classes(
            np.zeros(1, np.int32) if self._labelled and self._names else None, self._names
        )
        if self._labelled and not self._names:
            classes = f"{self._classes} classes"
        resumed = "" if self._exact else ", resumed approximately"
        return f"StreamDataset({len(self)} images of shape {self.shape}, {classes}{resumed})"

    @property
    def exact(self) -> bool:
        """Whether a stream that begins anew gives the same examples again."""
        return self._exact

    @property
    def shape(self) -> tuple[int, int, int]:
        """(height, width, channels) of one image."""
        return self._shape

    @property
    def class_names(self) -> tuple[str, ...]:
        """The names of the classes, or ()."""
        return self._names if self._labelled else ()

    @property
    def num_classes(self) -> int | None:
        """The number of classes; None without labels."""
        return self._classes if self._labelled else None

    def batches(self, batch_size: int, *, seed: int) -> ResumableBatches:
        """The stream from its start, as endless batches.

        - `seed`: of no effect; a stream has its own.

        **Raises:** `ValueError` if `batch_size` is not a whole number of at least 1. A batch raises it for
        a record that cannot be read, or whose image or label is unlike the others.
        """
        if not isinstance(batch_size, int | np.integer) or batch_size < 1:
            raise ValueError(f"batch_size must be a whole number of at least 1; got {batch_size!r}")
        return _StreamBatches(self._open, self._example, int(batch_size), self._exact)

    def _first(self) -> list[Example]:
        stream, found = self._open(), []
        for number in range(min(PROBED, self._count)):
            try:
                found.append(self._reader(next(stream), _place(number)))
            except StopIteration:
                break
        if not found:
            raise ValueError("the source has no examples")
        return found

    def _example(self, record: Any, number: int) -> Example:
        example = self._reader(record, _place(number))
        check_alike(example.image, self._shape, self._dtype, _place(number))
        if self._labelled:
            limit = self._classes or 0
            if example.label is None or not 0 <= example.label < limit:
                raise ValueError(
                    f"{_place(number)} has the label {example.label}, and labels go from 0 to {limit - 1}"
                )
        return example


def _place(number: int) -> str:
    return f"example {number} of the stream"


def _equal(one: Example, other: Example) -> bool:
    return one.label == other.label and np.array_equal(one.image, other.image)


class _StreamBatches:
    """Batches of a stream, which is read again from its start to go back."""

    def __init__(
        self,
        open: Callable[[], Stream],
        example: Callable[[Any, int], Example],
        size: int,
        exact: bool,
    ):
        self._open, self._example, self._size, self._exact = open, example, size, exact
        self._stream: Stream | None = None
        self._next = 0

    def __getitem__(self, number: int) -> dict[str, np.ndarray]:
        if self._stream is None or number < self._next:
            if self._stream is None or self._exact:
                self._stream = self._open()
            self._next = 0
        if not self._exact:
            self._next = number
        self._skip_to(number, self._stream)
        first = number * self._size
        found = [self._example(next(self._stream), first + row) for row in range(self._size)]
        self._next = number + 1
        batch = {"images": np.stack([example.image for example in found])}
        if found[0].label is not None:
            batch["labels"] = np.asarray([example.label for example in found], np.int32)
        return batch

    def _skip_to(self, number: int, stream: Stream) -> None:
        skipped = number - self._next
        if skipped > 1:
            _log.warning(
                "reading %d batches of the stream again, to go on where the run was", skipped
            )
        for _ in itertools.repeat(None, skipped * self._size):
            next(stream)

    def state(self) -> dict[str, Any] | None:
        """Which batch is next, and where the stream is."""
        inner = None if self._stream is None else self._stream.state()
        return None if inner is None else {"batch": self._next, "stream": inner}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a state."""
        self._stream = self._open()
        self._stream.restore(state["stream"])
        self._next = int(state["batch"])
