"""Configuration of noise schedules."""

from typing import Literal

from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass

from diffusion_eqx.config.base import STRICT

ScheduleType = Literal["linear", "scaled_linear", "cosine"]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class NoiseScheduleConfig:
    """How noise grows over the timesteps.

    **Fields:**

    - `schedule_type`: `linear` (beta linear; Ho et al. 2020), `scaled_linear` (sqrt(beta) linear;
      Rombach et al. 2022) or `cosine` (alpha_bar a squared cosine; Nichol & Dhariwal 2021).
    - `num_timesteps`: T, the number of discrete noise levels.
    - `beta_start`, `beta_end`: the first and last beta; the cosine schedule has no use for them.
    """

    name: str = "schedule"
    schedule_type: ScheduleType = "linear"
    num_timesteps: int = Field(default=1000, ge=1)
    beta_start: float = Field(default=1e-4, gt=0.0, lt=1.0)
    beta_end: float = Field(default=2e-2, gt=0.0, lt=1.0)

    @model_validator(mode="after")
    def _betas_grow(self) -> "NoiseScheduleConfig":
        if self.beta_start > self.beta_end:
            raise ValueError(
                f"beta_start must not exceed beta_end; got beta_start={self.beta_start} and "
                f"beta_end={self.beta_end}"
            )
        return self
