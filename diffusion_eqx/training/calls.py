"""How a run calls its callbacks, and what becomes of their answers."""

import json
import math
import warnings
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from diffusion_eqx.training.callback import Callback, Stop
from diffusion_eqx.training.run import Run


class Calls:
    """Calls all callbacks of a run; as a context manager, `start` at its begin and `end` whatever happens.

    A failure of an optional callback is a warning. The first failure of another one ends the run, once the
    callbacks after it, which save the state, have had their turn.
    """

    def __init__(self, callbacks: Iterable[Callback], run: Run):
        self._callbacks = _named(callbacks)
        self._run = run
        self._failure: Exception | None = None

    def __enter__(self) -> None:
        self("start")
        if self._failure is not None:
            self("end")
            self.raise_failure()

    def __exit__(self, kind: object, *exception: object) -> None:
        self("end")
        if kind is None:
            self.raise_failure()

    def __call__(self, method: str, *arguments: Any) -> None:
        """Call one method of all callbacks; `arguments` is the row of `evaluate`."""
        for name, callback in self._callbacks.items():
            try:
                answer = getattr(callback, method)(self._run, *arguments)
                self._take(answer, f"{name}.{method}", *arguments)
            except Exception as error:
                if callback.optional:
                    warnings.warn(
                        f"{type(callback).__name__} failed after step {self._run.step}, and the run goes "
                        f"on: {type(error).__name__}: {error}",
                        stacklevel=2,
                    )
                elif self._failure is None:
                    self._failure = error
                    self._run.stopping = True

    def raise_failure(self) -> None:
        """Raise the first failure, if there is one."""
        if self._failure is not None:
            raise self._failure

    def states(self) -> dict[str, Any]:
        """The states of the callbacks that have one, by name.

        **Warns:** `UserWarning` if one is no JSON; it is left out, since the rest must be saved.
        """
        found = {}
        for name, callback in self._callbacks.items():
            state = callback.state()
            try:
                # As a file gives it back, and as it is now: the checkpoint is written in the background.
                state = json.loads(json.dumps(state))
            except (TypeError, ValueError) as error:
                warnings.warn(f"the state of {name} is not saved: {error}", stacklevel=2)
                continue
            if state is not None:
                found[name] = state
        return found

    def restore(self, states: Mapping[str, Any]) -> None:
        """Give the callbacks the states of a checkpoint."""
        for name, callback in self._callbacks.items():
            if name in states:
                callback.restore(states[name])

    def _take(self, answer: Any, place: str, row: dict[str, float] | None = None) -> None:
        if isinstance(answer, Stop):
            self._run.stop(answer.reason)
        elif isinstance(answer, Mapping) and row is not None:
            _add(answer, place, row)
        elif answer is not None:
            wanted = (
                "None or Stop(reason)" if row is None else "None, Stop(reason) or numbers by name"
            )
            raise TypeError(f"{place} must return {wanted}; got {answer!r}")


def _add(metrics: Mapping[str, Any], place: str, row: dict[str, float]) -> None:
    taken = sorted(metrics.keys() & row.keys())
    if taken:
        raise ValueError(f"{place} gave {taken[0]!r}, which the report has already; rename it")
    for name, value in metrics.items():
        if math.isfinite(number := float(value)):
            row[name] = number
        else:
            warnings.warn(f"{place} gave {name}={number}, which is left out", stacklevel=4)


def _named(callbacks: Iterable[Callback]) -> dict[str, Callback]:
    """Callbacks by their class; the second of a class is "Name 2"."""
    counts: Counter[str] = Counter()
    named = {}
    for callback in callbacks:
        name = type(callback).__name__
        counts[name] += 1
        named[name if counts[name] == 1 else f"{name} {counts[name]}"] = callback
    return named
