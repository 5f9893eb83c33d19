"""What a person sees of a running training."""

import time

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)


class TrainingProgress:
    """A bar with loss and images per second on a terminal; a line for each report elsewhere."""

    def __init__(self, *, begin: int, total: int):
        self._console = Console(stderr=True)
        self._live = self._console.is_terminal
        self._progress = Progress(
            TextColumn("training"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("loss {task.fields[loss]:.4f}  {task.fields[rate]:.0f} images/s"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=self._console,
            disable=not self._live,
        )
        self._task = self._progress.add_task(
            "train", total=total, completed=begin, loss=float("nan"), rate=0.0
        )
        self._total = total
        self._last = (begin, time.perf_counter())

    def __enter__(self) -> "TrainingProgress":
        self._progress.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._progress.stop()

    def report(self, step: int, loss: float, images_per_step: int) -> float:
        """Show the state after `step` steps. Returns images per second since the last report."""
        now = time.perf_counter()
        last_step, last_time = self._last
        rate = (step - last_step) * images_per_step / max(now - last_time, 1e-9)
        self._last = (step, now)
        self._progress.update(self._task, completed=step, loss=loss, rate=rate)
        if not self._live:
            self._console.print(
                f"step {step}/{self._total}  loss {loss:.4f}  {rate:.0f} images/s", highlight=False
            )
        return rate
