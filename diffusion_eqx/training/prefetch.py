"""Batches are read while the step before them is computed."""

import collections
import threading
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from diffusion_eqx.data import Batches, PartialBatches, ResumableBatches

# Batches that wait, at most. One hides the time of reading, the other what varies of it.
_AHEAD = 2
# How often a step that waits looks whether the run is to stop.
_SECONDS = 0.1
# How long the end of a run waits for the batch that is being read.
_PATIENCE = 1.0


class _Read(NamedTuple):
    """A batch and, where one was asked for, the state of the stream after it; or why there is none."""

    batch: dict[str, np.ndarray] | None
    state: dict[str, Any] | None
    error: BaseException | None


def read_rows(batches: Batches, number: int, rows: slice) -> dict[str, np.ndarray]:
    """Some rows of a batch, without reading the others if that can be."""
    if isinstance(batches, PartialBatches):
        return batches.part(number, rows)
    return {name: array[rows] for name, array in batches[number].items()}


class ReadAhead:
    """The batches of a run in order, read by a thread. As a context manager it ends the thread.

    Only this thread touches `batches`, one batch at a time, so that whoever writes a data set need not
    think of threads. What it raises is raised by `take`, at the step that wanted that batch.

    - `rows`: those of each batch that this process trains on.
    - `first`, `last`: numbers of the first batch, and of the one after the last; no other is asked for.
    - `state_every`: batches between two states of a stream, see `ResumableBatches`; 0 for none.
    """

    def __init__(
        self, batches: Batches, rows: slice, *, first: int, last: int, state_every: int = 0
    ):
        self.state: dict[str, Any] | None = None
        self._batches, self._rows = batches, rows
        self._numbers = range(first, last)
        self._state_every = state_every if isinstance(batches, ResumableBatches) else 0
        self._ready: collections.deque[_Read] = collections.deque()
        self._changed = threading.Condition()
        self._stopped = False
        # A daemon: a read that never returns must not keep the program from ending.
        self._thread = threading.Thread(target=self._read_all, name="read-ahead", daemon=True)

    def __enter__(self) -> "ReadAhead":
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        with self._changed:
            self._stopped = True
            self._ready.clear()
            self._changed.notify_all()
        # The thread ends after the batch that it is reading. A read that hangs must not keep a run that was
        # asked to stop from saving its state.
        self._thread.join(_PATIENCE)

    def take(self, stopping: Callable[[], bool]) -> dict[str, np.ndarray] | None:
        """The next batch; None if `stopping()` becomes true before it is there.

        `state` is then that of the stream after this batch, if it is one of those that have a state.
        """
        with self._changed:
            while not self._ready:
                if stopping():
                    return None
                self._changed.wait(_SECONDS)
            read = self._ready.popleft()
            self._changed.notify_all()
        if read.error is not None:
            raise read.error
        self.state = read.state
        return read.batch

    def _read_all(self) -> None:
        for number in self._numbers:
            read = self._read(number)
            with self._changed:
                while len(self._ready) >= _AHEAD and not self._stopped:
                    self._changed.wait()
                if self._stopped:
                    return
                self._ready.append(read)
                self._changed.notify_all()
            if read.error is not None:
                return

    def _read(self, number: int) -> _Read:
        try:
            batch = read_rows(self._batches, number, self._rows)
            due = self._state_every > 0 and (number + 1) % self._state_every == 0
            state = None
            if due and isinstance(self._batches, ResumableBatches):
                state = self._batches.state()
            return _Read(batch, state, None)
        except BaseException as error:
            return _Read(None, None, error)
