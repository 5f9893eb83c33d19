"""Configuration of noise schedules."""

from typing import Annotated, Literal

from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass

from diffusion_eqx.config.base import STRICT

ScheduleType = Literal["linear", "scaled_linear", "cosine", "sigmoid", "vp", "ve", "edm", "flow"]

# Schedules that are given by betas.
_DISCRETE = ("linear", "scaled_linear", "cosine", "sigmoid")


@dataclass(frozen=True, kw_only=True, config=STRICT)
class NoiseScheduleConfig:
    """How noise grows over the timesteps.

    **Fields:**

    - `schedule_type`: by betas: `linear` (beta linear; Ho et al. 2020), `scaled_linear` (sqrt(beta) linear;
      Rombach et al. 2022), `cosine` (alpha_bar a squared cosine; Nichol & Dhariwal 2021) or `sigmoid` (beta
      logistic; Xu et al. 2022). In continuous time: `vp` and `ve` (the SDEs of Song et al. 2021), `edm`
      (Karras et al. 2022) or `flow` (the straight path of rectified flow).
    - `num_timesteps`: T, the number of noise levels that are trained.
    - `beta_start`, `beta_end`: the first and last beta, of `linear`, `scaled_linear` and `sigmoid`; and of
      `vp`, whose beta(t) runs from T·beta_start to T·beta_end.
    - `sigma_min`, `sigma_max`: the least and greatest standard deviation of the noise, of `ve` and `edm`.
    - `rescale_zero_terminal_snr`: change the betas so that nothing of the signal is left at the end (Lin et
      al. 2024).
    """

    name: str = "schedule"
    schedule_type: ScheduleType = "linear"
    num_timesteps: Annotated[int, Field(ge=1)] = 1000
    beta_start: Annotated[float, Field(gt=0.0, lt=1.0)] = 1e-4
    beta_end: Annotated[float, Field(gt=0.0, lt=1.0)] = 2e-2
    sigma_min: Annotated[float, Field(gt=0.0)] = 0.002
    sigma_max: Annotated[float, Field(gt=0.0)] = 80.0
    rescale_zero_terminal_snr: bool = False

    @model_validator(mode="after")
    def _numbers_agree(self) -> "NoiseScheduleConfig":
        if self.beta_start > self.beta_end:
            raise ValueError(
                f"beta_start must not exceed beta_end; got beta_start={self.beta_start} and "
                f"beta_end={self.beta_end}"
            )
        if self.sigma_min >= self.sigma_max:
            raise ValueError(
                f"sigma_min must be less than sigma_max; got sigma_min={self.sigma_min} and "
                f"sigma_max={self.sigma_max}"
            )
        if self.rescale_zero_terminal_snr and self.schedule_type not in _DISCRETE:
            raise ValueError(
                f"rescale_zero_terminal_snr changes betas, which schedule_type={self.schedule_type!r} does "
                f"not have; choose one of {', '.join(_DISCRETE)}"
            )
        return self

    @property
    def signal_vanishes(self) -> bool:
        """Whether nothing of the signal is left at t = 1."""
        return self.schedule_type == "flow" or self.rescale_zero_terminal_snr
