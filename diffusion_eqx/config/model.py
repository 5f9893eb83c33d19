"""Configuration of whole diffusion models."""

from dataclasses import field
from typing import Annotated, Literal

from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass

from diffusion_eqx.config.backbone import PositiveInt, UNetBackboneConfig
from diffusion_eqx.config.base import STRICT
from diffusion_eqx.config.schedule import NoiseScheduleConfig

LossType = Literal["mse", "l1", "huber"]
PredictionType = Literal["epsilon", "sample", "v_prediction"]


UnitFloat = Annotated[float, Field(ge=0.0, le=1.0)]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class AbstractDiffusionConfig:
    """What every pixel-space diffusion model needs to know.

    **Fields:**

    - `backbone`, `noise_schedule`: configurations of the parts.
    - `input_shape`: (height, width, channels) of one image.
    - `prediction_type`: what the network predicts: the noise, the clean image, or
      v = alpha·eps - sigma·x0.
    - `loss_type`: how far the prediction is from its target: squared, absolute or Huber error.
    - `clip_denoised`: keep predicted clean images in [-1, 1] while sampling.
    - `guidance_interval`: times (0 clean, 1 noise) between which classifier-free guidance acts; outside,
      its scale is 1.
    """

    name: str = "diffusion"
    backbone: UNetBackboneConfig = field(default_factory=UNetBackboneConfig)
    noise_schedule: NoiseScheduleConfig = field(default_factory=NoiseScheduleConfig)
    input_shape: tuple[PositiveInt, PositiveInt, PositiveInt] = (28, 28, 1)
    prediction_type: PredictionType = "epsilon"
    loss_type: LossType = "mse"
    clip_denoised: bool = True
    guidance_interval: tuple[UnitFloat, UnitFloat] = (0.0, 1.0)

    @model_validator(mode="after")
    def _parts_agree(self) -> "AbstractDiffusionConfig":
        channels = self.input_shape[2]
        for name in ("in_channels", "out_channels"):
            given = getattr(self.backbone, name)
            if given != channels:
                raise ValueError(
                    f"backbone.{name} is {given}, but input_shape={self.input_shape} has "
                    f"{channels} channels: they must be equal"
                )
        if self.guidance_interval[0] > self.guidance_interval[1]:
            raise ValueError(
                f"guidance_interval must be (earliest, latest) time; got {self.guidance_interval}"
            )
        return self


@dataclass(frozen=True, kw_only=True, config=STRICT)
class DDPMConfig(AbstractDiffusionConfig):
    """A model sampled by ancestral sampling over all timesteps (Ho et al. 2020)."""

    kind: Literal["ddpm"] = "ddpm"


@dataclass(frozen=True, kw_only=True, config=STRICT)
class DDIMConfig(AbstractDiffusionConfig):
    """A model sampled by DDIM (Song et al. 2021).

    **Fields** beyond those of every model:

    - `num_inference_steps`: denoising steps.
    - `eta`: 0 for deterministic sampling, 1 for as much noise as DDPM adds.
    """

    kind: Literal["ddim"] = "ddim"
    num_inference_steps: Annotated[int, Field(ge=1)] = 50
    eta: Annotated[float, Field(ge=0.0, le=1.0)] = 0.0

    @model_validator(mode="after")
    def _steps_exist(self) -> "DDIMConfig":
        if self.num_inference_steps > self.noise_schedule.num_timesteps:
            raise ValueError(
                f"num_inference_steps={self.num_inference_steps} exceeds the "
                f"{self.noise_schedule.num_timesteps} timesteps of the noise schedule"
            )
        return self
