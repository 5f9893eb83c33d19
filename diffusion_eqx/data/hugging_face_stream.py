"""Streamed data sets of Hugging Face. `datasets` is imported by whoever made one, never here."""

import copy
from collections.abc import Iterator
from typing import Any

from diffusion_eqx.data.foreign import is_of


def is_hugging_face(source: Any) -> bool:
    """Whether it is a `datasets.Dataset`."""
    return is_of(source, "datasets", "Dataset")


def is_hugging_face_stream(source: Any) -> bool:
    """Whether it is a `datasets.IterableDataset`."""
    return is_of(source, "datasets", "IterableDataset")


class HuggingFaceStream:
    """The examples of a `datasets.IterableDataset`, again and again; each pass is an epoch of it."""

    def __init__(self, source: Any):
        # Its state is kept in the data set, not in the iterator. The cache of file systems is one for all
        # data sets, and grows while it is copied by another thread than the one that made it.
        shared = vars(source).get("_IterableDataset__hffs_cache")
        self._source = copy.deepcopy(source, {} if shared is None else {id(shared): shared})
        self._epoch = 0
        self._iterator = self._begin()

    def __next__(self) -> Any:
        try:
            return next(self._iterator)
        except StopIteration:
            self._epoch += 1
            self._iterator = self._begin()
            return next(self._iterator)

    def _begin(self) -> Iterator[Any]:
        self._source.set_epoch(self._epoch)
        return iter(self._source)

    def state(self) -> dict[str, Any] | None:
        """The epoch, and the data set's own state."""
        return {"epoch": self._epoch, "source": self._source.state_dict()}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a state."""
        self._epoch = int(state["epoch"])
        self._source.load_state_dict(state["source"])
        self._iterator = self._begin()


def check_resumable(source: Any) -> None:
    """Refuse a stream that goes on with other examples than it would have given.

    **Raises:** `ValueError` for a stream that is shuffled in a buffer, whose contents its state does not
    hold.
    """
    within = [source._ex_iterable]
    while within:
        part = within.pop()
        if "BufferShuffled" in type(part).__name__:
            raise ValueError(
                "a shuffled stream of Hugging Face loses the examples in its buffer when it is resumed: "
                "leave out shuffle(), read a data set that is not streamed (it is shuffled anew in each "
                'epoch), or accept that by resume="approximate"'
            )
        inner = getattr(part, "ex_iterable", None)
        within += [inner] if inner is not None else list(getattr(part, "ex_iterables", ()))
