"""Signals that ask a run to stop."""

import contextlib
import signal
from collections.abc import Callable, Iterator
from typing import Any


@contextlib.contextmanager
def stop_requests(stop: Callable[[], None]) -> Iterator[list[int]]:
    """Call `stop` at SIGINT and SIGTERM instead of dying of them, so that the state can be saved first.

    Gives the list of the signals received. A second signal of the same kind has its usual effect. Outside
    the main thread signals are left alone.
    """
    received: list[int] = []
    before: dict[int, Any] = {}

    def note(number: int, frame: object) -> None:
        received.append(number)
        signal.signal(number, before[number])
        stop()

    try:
        for number in (signal.SIGINT, signal.SIGTERM):
            before[number] = signal.signal(number, note)
    except ValueError:  # Not in the main thread.
        yield received
        return
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
