"""Signals that ask a run to stop."""

import contextlib
import os
import signal
from collections.abc import Callable, Iterator
from typing import Any

import jax


@contextlib.contextmanager
def stop_requests(stop: Callable[[], None]) -> Iterator[None]:
    """Call `stop` at SIGINT and SIGTERM instead of dying of them, so that the state can be saved first.

    A second signal of the same kind has its usual effect. Outside the main thread signals are left alone.
    Where several processes train together, all must stop after the same step: `preempted` says which.
    """
    before: dict[int, Any] = {}

    def note(number: int, frame: object) -> None:
        signal.signal(number, before[number])
        # Compiling may take half a minute more, in which nothing else is seen.
        _say("stopping after this step; the same signal again ends at once")
        stop()

    def pass_on(number: int, frame: object) -> None:
        signal.signal(number, before[number])
        os.kill(os.getpid(), signal.SIGTERM)

    # A handler of SIGTERM set here would take the signal from jax, which tells the other processes of it.
    handlers = (
        {signal.SIGINT: pass_on} if _agreed() else {signal.SIGINT: note, signal.SIGTERM: note}
    )
    try:
        for number, handler in handlers.items():
            before[number] = signal.signal(number, handler)
    except ValueError:  # Not in the main thread.
        yield
        return
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _say(line: str) -> None:
    # Not by print: the signal may have come while something else was printed.
    with contextlib.suppress(OSError):
        os.write(2, f"{line}\n".encode())


def preempted(step: int) -> bool:
    """Whether the run must stop after this step, since one of several processes received SIGTERM.

    All processes call it after each step, and are told the same step; jax agrees on it between them.
    """
    if not _agreed():
        return False
    from jax.experimental import multihost_utils

    return multihost_utils.reached_preemption_sync_point(step)


def _agreed() -> bool:
    served = getattr(jax.config, "jax_enable_preemption_service", False)
    return jax.distributed.is_initialized() and served
