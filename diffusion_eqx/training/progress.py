"""What a person sees of a run."""

import time
from typing import TYPE_CHECKING, Any

from diffusion_eqx.training.callback import Callback
from diffusion_eqx.training.devices import writes
from diffusion_eqx.training.run import Run

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress as Bar


class Progress(Callback):
    """A bar with loss and images per second on a terminal; elsewhere a line for each report.

    Compiling the first step takes up to minutes: that it has begun, and how long it took, is said too.
    """

    optional = True

    _console: "Console"
    _bar: "Bar | None" = None

    def start(self, run: Run) -> None:
        """Say what begins."""
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )

        if self._bar is not None:  # The run has gone back after divergence.
            self._bar.stop()
        self._console = Console(stderr=True, quiet=not writes())
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[numbers]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=self._console,
            disable=not (self._console.is_terminal and writes()),
        )
        self._task = self._bar.add_task(
            "training" if run.finished else "compiling",
            total=run.config.steps,
            completed=run.step,
            numbers="",
        )
        self._bar.start()
        self._began = time.perf_counter()
        self._first = run.step + 1
        where = "" if run.folder is None else f" in {run.folder}"
        if run.finished:
            self._say(f"the run{where} is finished: all {run.step} steps are done")
        elif run.step:
            self._say(
                f"the run{where} goes on after step {run.step}; compiling the training step …"
            )
        else:
            self._say(
                f"training for {run.config.steps} steps{where}; compiling the training step …"
            )

    def step(self, run: Run) -> None:
        """Say how long the first step took, and its loss: a person waits for both."""
        if run.step == self._first:
            metrics, loss = run._state.metrics, ""
            # A report has shown it, or steps of before a resumption are summed with it.
            if int(metrics.steps) == 1:
                loss = f"; step {run.step} has loss {float(metrics.loss):.4f}"
            self._say(f"compiled in {time.perf_counter() - self._began:.0f} s{loss}")
            self._shown(run)

    def evaluate(self, run: Run, row: dict[str, float]) -> None:
        """Show a report."""
        loss = f"{row['loss']:.4f}" if "loss" in row else "– (all steps overflowed)"
        numbers = f"loss {loss}  {row['images_per_second']:.0f} images/s"
        if row.get("skipped"):
            numbers += f"  {row['skipped']:.0f} steps skipped"
        self._shown(run, numbers=numbers)
        if not self._console.is_terminal:
            self._say(f"step {run.step}/{run.config.steps}  {numbers}")

    def end(self, run: Run) -> None:
        """Leave the bar as it is, and say why the run ends early."""
        if self._bar is not None:
            self._bar.stop()
        if run.reason is not None:
            self._say(f"the run stops after step {run.step}: {run.reason}")

    def _shown(self, run: Run, **fields: Any) -> None:
        if self._bar is not None:
            self._bar.update(self._task, description="training", completed=run.step, **fields)

    def _say(self, line: str) -> None:
        self._console.print(line, highlight=False, soft_wrap=True)
