"""Configuration of training."""

from typing import Annotated, Literal

from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass

from diffusion_eqx.config.base import STRICT

LossWeighting = Literal["uniform", "snr", "min_snr"]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class DiffusionTrainingConfig:
    """How a denoiser is trained.

    **Fields:**

    - `steps`, `batch_size`: length of the run, and images of one step.
    - `learning_rate`, `warmup_steps`: peak of the learning rate, reached linearly, then decayed to
      zero by a cosine over the rest of the run.
    - `weight_decay`: of AdamW (Loshchilov & Hutter 2019).
    - `max_grad_norm`: gradients of a larger global norm are scaled down to it.
    - `loss_weighting`, `snr_gamma`: weight of each noise level; `min_snr` is Hang et al. 2023.
    - `label_dropout`: probability of training an example without its label, for classifier-free
      guidance (Ho & Salimans 2022).
    - `ema_decay`, `ema_update_every`: moving average of the weights, which is what is saved.
    - `seed`: decides initial weights, order of the data, noise and dropout.
    """

    steps: Annotated[int, Field(ge=1)] = 1000
    batch_size: Annotated[int, Field(ge=1)] = 64
    learning_rate: Annotated[float, Field(gt=0.0)] = 3e-3
    warmup_steps: Annotated[int, Field(ge=0)] = 100
    weight_decay: Annotated[float, Field(ge=0.0)] = 0.0
    max_grad_norm: Annotated[float, Field(gt=0.0)] = 1.0
    loss_weighting: LossWeighting = "min_snr"
    snr_gamma: Annotated[float, Field(gt=0.0)] = 5.0
    label_dropout: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.1
    ema_decay: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.999
    ema_update_every: Annotated[int, Field(ge=1)] = 1
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0

    @model_validator(mode="after")
    def _warmup_fits(self) -> "DiffusionTrainingConfig":
        if self.warmup_steps >= self.steps and self.warmup_steps > 0:
            raise ValueError(
                f"warmup_steps={self.warmup_steps} must be fewer than steps={self.steps}"
            )
        return self
