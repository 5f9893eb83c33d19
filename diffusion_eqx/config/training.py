"""Configuration of training."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Literal

from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass

from diffusion_eqx.config.base import STRICT

LossWeighting = Literal["uniform", "snr", "min_snr"]

# The weighting of each prediction where `loss_weighting` is None. Hang et al. (2023) proposed min-SNR for
# the first three; it would hardly train the clean end of the others. Those count every error of the
# network's output alike: for a score, sigma² times the error of the score (Song et al. 2021, eq. 7); for
# `edm`, the weight of Karras et al. (2022, table 1); for a velocity, that of Lipman et al. (2023, eq. 9).
DEFAULT_WEIGHTING: Mapping[str, LossWeighting] = MappingProxyType(
    {
        "epsilon": "min_snr",
        "sample": "min_snr",
        "v_prediction": "min_snr",
        "score": "uniform",
        "velocity": "uniform",
        "edm": "uniform",
    }
)

Cadence = Annotated[int, Field(ge=0)]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class TrainingConfig:
    """How a network is trained: the one place of a run's length, batch, seed and reports.

    **Fields:**

    - `steps`: updates of the weights.
    - `batch_size`: examples of one step.
    - `learning_rate`: the peak of the learning rate. It is reached linearly and then falls to zero along a
      cosine until the last step.
    - `warmup_steps`: steps until the peak; None: a tenth of `steps`, at most 100.
    - `weight_decay`: of AdamW (Loshchilov & Hutter 2019), for matrices and convolution kernels only.
    - `b1`, `b2`: decay of Adam's averages of the gradient and of its square (Kingma & Ba 2015). The usual
      `b2` of 0.999 remembers a thousand steps; 0.99 remembers a hundred and suits runs of a few thousand.
    - `max_grad_norm`: gradients of a larger global norm are scaled down to it.
    - `loss_weighting`: what the error at each noise level weighs. `uniform`: errors of the network's output
      count alike; `snr`: errors of the clean image count by the signal-to-noise ratio (Salimans & Ho 2022);
      `min_snr`: by this ratio, at most `snr_gamma` (Hang et al. 2023); None: the default of the model's
      prediction, see `DEFAULT_WEIGHTING`.
    - `snr_gamma`: the greatest weight of `min_snr`.
    - `label_dropout`: probability that an example is trained without its label, which classifier-free
      guidance needs (Ho & Salimans 2022).
    - `ema_decay`: decay of the moving average of the weights. Samples are drawn with the average, and it is
      what is saved.
    - `ema_update_every`: steps between two updates of the average.
    - `log_every`: steps between two reports.
    - `checkpoint_every`: steps between two checkpoints, if the run has a folder.
    - `preview_every`: steps between two pictures of what the model draws, if the run has a folder.
    - `seed`: decides the order of the data, the noise and the dropout.

    The three intervals may be 0, which means never; the last step has a report and a checkpoint anyway.
    """

    steps: Annotated[int, Field(ge=1)] = 1000
    batch_size: Annotated[int, Field(ge=1)] = 64
    learning_rate: Annotated[float, Field(gt=0.0)] = 3e-3
    warmup_steps: Annotated[int, Field(ge=0)] | None = None
    weight_decay: Annotated[float, Field(ge=0.0)] = 0.0
    b1: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.9
    b2: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.99
    max_grad_norm: Annotated[float, Field(gt=0.0)] = 1.0
    loss_weighting: LossWeighting | None = None
    snr_gamma: Annotated[float, Field(gt=0.0)] = 5.0
    label_dropout: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.1
    ema_decay: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.999
    ema_update_every: Annotated[int, Field(ge=1)] = 1
    log_every: Cadence = 20
    checkpoint_every: Cadence = 200
    preview_every: Cadence = 0
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0

    @model_validator(mode="after")
    def _warmup_fits(self) -> "TrainingConfig":
        if self.warmup >= self.steps and self.warmup > 0:
            raise ValueError(
                f"warmup_steps={self.warmup_steps} must be fewer than steps={self.steps}; leave "
                "warmup_steps out to have a tenth of the steps"
            )
        return self

    @property
    def warmup(self) -> int:
        """Steps until the peak of the learning rate: `warmup_steps`, or its default."""
        return min(100, self.steps // 10) if self.warmup_steps is None else self.warmup_steps

    def weighting_of(self, prediction_type: str) -> LossWeighting:
        """The loss weighting for a model of this prediction: `loss_weighting`, or the prediction's default.

        **Raises:** `ValueError` if the prediction is unknown and `loss_weighting` is None.
        """
        if self.loss_weighting is not None:
            return self.loss_weighting
        if prediction_type not in DEFAULT_WEIGHTING:
            raise ValueError(
                f"no default loss weighting is known for the prediction {prediction_type!r}; set "
                f"loss_weighting, or choose a prediction among {', '.join(DEFAULT_WEIGHTING)}"
            )
        return DEFAULT_WEIGHTING[prediction_type]


# The name that readers of other libraries know.
DiffusionTrainingConfig = TrainingConfig
