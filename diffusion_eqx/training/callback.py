"""What may happen around the steps of a run."""

from typing import ClassVar

from diffusion_eqx.training.run import Run


class Callback:
    """Acts at points of a run. Override what you need; each method does nothing by default.

    The methods are called in this order: `start`, then for each step `evaluate` (if a report is due) and
    `step`, and last `end`. A callback given to `train` or `fit` comes before the library's own.

    An exception of a callback ends the run, after the state has been saved. Where `optional` is true, it is
    reported as a warning and the run goes on; so it is for all callbacks of the library.
    """

    optional: ClassVar[bool] = False

    def start(self, run: Run) -> None:
        """Before the first step, and again where a run goes on after divergence.

        A resumed run has its step and its rows already.
        """

    def evaluate(self, run: Run, row: dict[str, float]) -> None:
        """At each report. `row` holds `step`, `loss` and others; what you add to it reaches the log."""

    def step(self, run: Run) -> None:
        """After each step."""

    def end(self, run: Run) -> None:
        """After the last step, and also if the run was stopped or failed; see `run.finished`."""
