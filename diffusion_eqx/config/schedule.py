"""Configuration of noise schedules."""

from typing import Annotated, Literal

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
    num_timesteps: Annotated[int, Field(ge=1)] = 1000
    beta_start: Annotated[float, Field(gt=0.0, lt=1.0)] = 1e-4
    beta_end: Annotated[float, Field(gt=0.0, lt=1.0)] = 2e-2

    @model_validator(mode="after")
    def _betas_grow(self) -> "NoiseScheduleConfig":
        if self.beta_start > self.beta_end:
            raise ValueError(
                f"beta_start must not exceed beta_end; got beta_start={self.beta_start} and "
                f"beta_end={self.beta_end}"
            )
        return self
