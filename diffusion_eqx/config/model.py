"""Configuration of whole diffusion models."""

from dataclasses import field, fields
from typing import Annotated, Literal

from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass

from diffusion_eqx.config.backbone import (
    AbstractDiTConfig,
    BackboneConfig,
    DiTBackboneConfig,
    PositiveInt,
    UNetBackboneConfig,
)
from diffusion_eqx.config.base import STRICT
from diffusion_eqx.config.schedule import NoiseScheduleConfig

LossType = Literal["mse", "l1", "huber"]
PredictionType = Literal["epsilon", "sample", "v_prediction", "score", "velocity", "edm"]
ScorePrediction = Literal["score", "edm"]
SDEType = Literal["ve", "vp"]

# Predictions from which x0 cannot be found where there is no signal.
_NEED_SIGNAL = ("epsilon", "score", "edm")


UnitFloat = Annotated[float, Field(ge=0.0, le=1.0)]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class AbstractModelConfig:
    """What every diffusion model needs to know.

    **Fields:**

    - `loss_type`: how far the prediction is from its target: squared, absolute or Huber error.
    - `clip_denoised`: keep predicted clean images in [-1, 1] while sampling.
    - `guidance_interval`: times (0 clean, 1 noise) between which classifier-free guidance acts; outside,
      its scale is 1.
    """

    name: str = "diffusion"
    loss_type: LossType = "mse"
    clip_denoised: bool = True
    guidance_interval: tuple[UnitFloat, UnitFloat] = (0.0, 1.0)

    @model_validator(mode="after")
    def _interval_is_ordered(self) -> "AbstractModelConfig":
        if self.guidance_interval[0] > self.guidance_interval[1]:
            raise ValueError(
                f"guidance_interval must be (earliest, latest) time; got {self.guidance_interval}"
            )
        return self


@dataclass(frozen=True, kw_only=True, config=STRICT)
class AbstractDiffusionConfig(AbstractModelConfig):
    """What a pixel-space diffusion model needs to know whose backbone can be chosen.

    **Fields** beyond those of every model:

    - `backbone`: configuration of the network, a U-Net or a diffusion transformer.
    - `input_shape`: (height, width, channels) of one image.
    """

    backbone: BackboneConfig = field(default_factory=UNetBackboneConfig)
    input_shape: tuple[PositiveInt, PositiveInt, PositiveInt] = (28, 28, 1)

    @model_validator(mode="after")
    def _parts_agree(self) -> "AbstractDiffusionConfig":
        height, width, channels = self.sample_shape
        for name in ("in_channels", "out_channels"):
            given = getattr(self.backbone, name)
            if given != channels:
                raise ValueError(
                    f"backbone.{name} is {given}, but input_shape={self.input_shape} is denoised as "
                    f"{self.sample_shape}, which has {channels} channels: they must be equal"
                )
        if isinstance(self.backbone, DiTBackboneConfig):
            self.backbone.check_tiles(height, width)
        return self

    @property
    def sample_shape(self) -> tuple[int, int, int]:
        """(height, width, channels) of what is denoised: the image itself, unless the model is latent."""
        return self.input_shape


@dataclass(frozen=True, kw_only=True, config=STRICT)
class AbstractNoiseConfig(AbstractModelConfig):
    """What a model needs to know whose noise schedule and prediction can be chosen.

    **Fields** beyond those of every model:

    - `noise_schedule`: configuration of the noise.
    - `prediction_type`: what the network predicts: the noise, the clean image, v = alpha·eps - sigma·x0,
      the score, the flow's velocity, or the mixture of Karras et al. (2022).
    """

    noise_schedule: NoiseScheduleConfig = field(default_factory=NoiseScheduleConfig)
    prediction_type: PredictionType = "epsilon"

    @model_validator(mode="after")
    def _prediction_fits_schedule(self) -> "AbstractNoiseConfig":
        if self.noise_schedule.signal_vanishes and self.prediction_type in _NEED_SIGNAL:
            raise ValueError(
                f"prediction_type={self.prediction_type!r} cannot be used with this noise_schedule: no "
                "signal is left at its end, where x0 cannot be found from such a prediction; choose "
                "'velocity', 'v_prediction' or 'sample'"
            )
        return self


@dataclass(frozen=True, kw_only=True, config=STRICT)
class AbstractScheduledConfig(AbstractNoiseConfig, AbstractDiffusionConfig):
    """What a model needs to know whose backbone, noise schedule and prediction can be chosen."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class DDPMConfig(AbstractScheduledConfig):
    """A model sampled by ancestral sampling over all timesteps (Ho et al. 2020)."""

    kind: Literal["ddpm"] = "ddpm"


@dataclass(frozen=True, kw_only=True, config=STRICT)
class DDIMConfig(AbstractScheduledConfig):
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


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ScoreDiffusionConfig(AbstractDiffusionConfig):
    """A model of the score, grad log p_t(x), of a diffusion in continuous time (Song et al. 2021).

    **Fields** beyond those of every model:

    - `sde_type`: `ve`, whose noise grows geometrically from `sigma_min` to `sigma_max`, or `vp`.
    - `sigma_min`, `sigma_max`: of the `ve` SDE; the latter about as large as the greatest distance between
      two images.
    - `beta_min`, `beta_max`: of the `vp` SDE, whose beta(t) is linear.
    - `prediction_type`: `score`, or the mixture of score and clean image of Karras et al. (2022), `edm`, by
      which the error of x0 stays bounded at the greatest noise (there it is sigma times that of a score).
      Either way the model gives the score.
    - `score_scaling`: of the prediction `score`, which is this times the network's output over sigma.
    - `noise_steps`: noise levels that are trained.
    """

    kind: Literal["score"] = "score"
    sde_type: SDEType = "ve"
    sigma_min: Annotated[float, Field(gt=0.0)] = 0.01
    sigma_max: Annotated[float, Field(gt=0.0)] = 10.0
    beta_min: Annotated[float, Field(gt=0.0)] = 0.1
    beta_max: Annotated[float, Field(gt=0.0)] = 20.0
    prediction_type: ScorePrediction = "score"
    score_scaling: Annotated[float, Field(gt=0.0)] = 1.0
    noise_steps: Annotated[int, Field(ge=2)] = 1000

    @model_validator(mode="after")
    def _only_scores_are_scaled(self) -> "ScoreDiffusionConfig":
        if self.prediction_type != "score" and self.score_scaling != 1.0:
            raise ValueError(
                f"score_scaling={self.score_scaling} is of prediction_type='score'; with "
                f"{self.prediction_type!r} it must be left at 1"
            )
        return self

    @model_validator(mode="after")
    def _schedule_exists(self) -> "ScoreDiffusionConfig":
        _ = self.noise_schedule
        return self

    @property
    def noise_schedule(self) -> NoiseScheduleConfig:
        """The schedule that these numbers describe."""
        return NoiseScheduleConfig(
            schedule_type=self.sde_type,
            num_timesteps=self.noise_steps,
            beta_start=self.beta_min / self.noise_steps,
            beta_end=self.beta_max / self.noise_steps,
            sigma_min=self.sigma_min,
            sigma_max=self.sigma_max,
        )


@dataclass(frozen=True, kw_only=True, config=STRICT)
class DiTConfig(AbstractDiTConfig, AbstractNoiseConfig):
    """A diffusion transformer as a model of its own (Peebles & Xie 2023).

    **Fields** beyond those of every model, of the noise and of the transformer:

    - `img_size`: side of square images, or (height, width).
    - `channels`: of an image.
    - `cfg_scale`: scale of classifier-free guidance where labels are given; 1 is none.
    """

    kind: Literal["dit"] = "dit"
    name: str = "dit"
    img_size: PositiveInt | tuple[PositiveInt, PositiveInt] = 32
    channels: PositiveInt = 3
    cfg_scale: Annotated[float, Field(ge=0.0)] = 1.0

    @model_validator(mode="after")
    def _patches_tile(self) -> "DiTConfig":
        height, width, _ = self.input_shape
        self.check_tiles(height, width)
        return self

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """(height, width, channels) of one image."""
        size = (self.img_size, self.img_size) if isinstance(self.img_size, int) else self.img_size
        return (*size, self.channels)

    @property
    def sample_shape(self) -> tuple[int, int, int]:
        """(height, width, channels) of what is denoised: the image itself."""
        return self.input_shape

    @property
    def backbone(self) -> DiTBackboneConfig:
        """The transformer alone."""
        sizes = {f.name: getattr(self, f.name) for f in fields(AbstractDiTConfig)}
        return DiTBackboneConfig(in_channels=self.channels, **sizes)


ModelConfig = AbstractScheduledConfig | ScoreDiffusionConfig | DiTConfig
