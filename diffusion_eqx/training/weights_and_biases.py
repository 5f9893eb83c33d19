"""The reports of a run for Weights & Biases."""

import dataclasses
from typing import Any

from diffusion_eqx.training.callback import Callback
from diffusion_eqx.training.devices import writes
from diffusion_eqx.training.extras import need
from diffusion_eqx.training.run import Run


class WeightsAndBiases(Callback):
    """Sends each report, and each preview, to a project of Weights & Biases.

    A run that goes on after a stop goes on there too. `WANDB_MODE=offline` writes into the run's folder,
    and `wandb sync` sends it later.

    - `project`: its name there.
    - `options`: of `wandb.init`, such as `entity="team"` or `name="first"`.

    **Raises:** `ModuleNotFoundError` without wandb, which the extra `wandb` brings.
    """

    optional = True

    _id: str | None = None
    _there: Any = None

    def __init__(self, project: str, **options: Any):
        need("wandb", extra="wandb")
        self._project = project
        self._options = options

    def start(self, run: Run) -> None:
        """Begin the run there, or go on with it."""
        if not writes() or self._there is not None:
            return
        import wandb

        usual: dict[str, Any] = {"config": dataclasses.asdict(run.config), "resume": "allow"}
        if run.folder is not None:
            usual["dir"] = str(run.folder)
        self._there = wandb.init(project=self._project, id=self._id, **(usual | self._options))
        self._id = self._there.id
        # Their own count of steps never goes back, as a run may that resumes or diverges.
        self._there.define_metric("*", step_metric="step")

    def step(self, run: Run) -> None:
        """Send the report and the picture of this step, if there are any."""
        if self._there is None:
            return
        import wandb

        sent: dict[str, Any] = dict(run.report or {})
        if run.picture is not None:
            sent |= {"step": run.step, "preview": wandb.Image(str(run.picture))}
        if sent:
            self._there.log(sent)

    def end(self, run: Run) -> None:
        """Wait until all is sent."""
        if self._there is not None:
            self._there.finish()
            self._there = None

    def state(self) -> str | None:
        """The number that Weights & Biases gave the run."""
        return self._id

    def restore(self, state: str) -> None:
        """Take the number that the run has there."""
        self._id = state
