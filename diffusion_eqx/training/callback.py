"""What may happen around the steps of a run."""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

from diffusion_eqx.training.run import Run


@dataclasses.dataclass(frozen=True)
class Stop:
    """A callback's answer that ends the run after this step, its state being saved.

    - `reason`: what is said of it, such as "the held-out loss rises".
    """

    reason: str


class Callback:
    """Acts at points of a run. Override what you need; each method does nothing by default.

    The methods are called in this order: `start`, then for each step `evaluate` (if a report is due) and
    `step`, and last `end`. A callback given to `train` or `fit` comes before the library's own, but for the
    preview, so that it sees the picture of its step. The state is saved after `step`.

    Where several processes train together, the callbacks run in all of them, and must answer alike in all;
    files are written by the first one (`jax.process_index() == 0`).

    An exception of a callback ends the run, after the state has been saved. Where `optional` is true, it is
    reported as a warning and the run goes on; so it is for all callbacks of the library.
    """

    optional: ClassVar[bool] = False

    def start(self, run: Run) -> Stop | None:
        """Before the first step, and again where a run goes on after divergence.

        A resumed run has its step and its rows already.
        """

    def evaluate(self, run: Run, row: dict[str, float]) -> Stop | Mapping[str, float] | None:
        """At each report. `row` holds `step`, `loss` and others; the numbers returned are added to it.

        A number that is not finite is left out, with a warning.
        """

    def step(self, run: Run) -> Stop | None:
        """After each step. `run.report` has what all callbacks added to the report, if there was one."""

    def end(self, run: Run) -> None:
        """After the last step, and also if the run was stopped or failed; see `run.finished`."""

    def state(self) -> Any:
        """What the callback must know to go on after a resumption, as JSON; None is nothing.

        It is part of each checkpoint.
        """
        return None

    def restore(self, state: Any) -> None:
        """Take what `state` gave when the checkpoint was saved. It is called before `start`."""
