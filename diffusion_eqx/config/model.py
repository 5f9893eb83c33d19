"""Configuration of whole diffusion models."""

from dataclasses import field, fields
from typing import Annotated, Any, Literal, Protocol, TypeVar, runtime_checkable

from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass

from diffusion_eqx.config.backbone import (
    AbstractDiTConfig,
    BackboneConfig,
    DiTBackboneConfig,
    PositiveInt,
    UNetBackboneConfig,
    unet_for,
)
from diffusion_eqx.config.base import STRICT
from diffusion_eqx.config.schedule import NoiseScheduleConfig
from diffusion_eqx.config.training import PredictionType

LossType = Literal["mse", "l1", "huber", "pseudo_huber"]
ScorePrediction = Literal["score", "edm"]
SDEType = Literal["ve", "vp"]

# Predictions from which x0 cannot be found where there is no signal.
_NEED_SIGNAL = ("epsilon", "score", "edm")

DiffusionT = TypeVar("DiffusionT", bound="AbstractDiffusionConfig")
DiTT = TypeVar("DiTT", bound="DiTConfig")

UnitFloat = Annotated[float, Field(ge=0.0, le=1.0)]

# How much noise a pixel has to be told from: the standard deviation of natural images in [−1, 1] is
# about this (Karras et al. 2022, table 1). Latents are scaled to 1.
PIXEL_STD, LATENT_STD = 0.5, 1.0


@dataclass(frozen=True, kw_only=True, config=STRICT)
class SamplerConfig:
    """How a model is sampled unless told otherwise."""

    name: str = "ddim"
    """A sampler of the catalogue (`diffusion-eqx samplers` lists it)."""
    steps: Annotated[int, Field(ge=1)] | None = None
    """Number of steps; None: as many as there are timesteps."""
    numbers: tuple[tuple[str, float], ...] = ()
    """Pairs of a name and a number of the sampler, such as (("eta", 0.5),)."""


@runtime_checkable
class Data(Protocol):
    """What a configuration asks of a data set."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(height, width, channels) of one image."""
        ...

    @property
    def num_classes(self) -> int | None:
        """Number of classes, or None."""
        ...


@dataclass(frozen=True, kw_only=True, config=STRICT)
class AbstractModelConfig:
    """What every diffusion model needs to know."""

    name: str = "diffusion"
    """A name for people; an artifact of the model bears it."""
    loss_type: LossType = "mse"
    """The error of a prediction: squared (`mse`), absolute (`l1`), `huber`, or its smooth kin
    `pseudo_huber`."""
    clip_denoised: bool = True
    """Keep predicted clean images in [−1, 1] while sampling."""
    guidance_interval: tuple[UnitFloat, UnitFloat] = (0.0, 1.0)
    """Times (0 clean, 1 noise) between which the model's own guidance acts; outside, its scale is 1."""
    sampler: SamplerConfig | None = None
    """How the model is sampled unless told otherwise; None: as is usual for its kind."""

    @property
    def recommended(self) -> SamplerConfig:
        """The sampler that the model is drawn with unless told otherwise."""
        return self.usual_sampler if self.sampler is None else self.sampler

    @property
    def usual_sampler(self) -> SamplerConfig:
        """The sampler that is usual for this kind of model."""
        return SamplerConfig(name="ddpm")

    @model_validator(mode="after")
    def _interval_is_ordered(self) -> "AbstractModelConfig":
        if self.guidance_interval[0] > self.guidance_interval[1]:
            raise ValueError(
                f"guidance_interval must be (earliest, latest) time; got {self.guidance_interval}"
            )
        return self


@dataclass(frozen=True, kw_only=True, config=STRICT)
class AbstractDiffusionConfig(AbstractModelConfig):
    """What a pixel-space diffusion model needs to know whose backbone can be chosen."""

    backbone: BackboneConfig = field(default_factory=UNetBackboneConfig)
    """The network, a U-Net or a diffusion transformer."""
    input_shape: tuple[PositiveInt, PositiveInt, PositiveInt] = (28, 28, 1)
    """Height, width and channels of one image."""

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

    @classmethod
    def for_data(cls: type[DiffusionT], data: Data, **fields: Any) -> DiffusionT:
        """A configuration that fits a data set: its image shape, channels and classes, and a U-Net
        of modest size.

        `fields` are those of the class and take precedence.
        """
        height, width, channels = data.shape
        fields.setdefault("input_shape", (height, width, channels))
        if "backbone" not in fields:
            fields["backbone"] = unet_for((height, width), channels, data.num_classes)
        return cls(**{**cls._data_defaults(), **fields})

    @classmethod
    def _data_defaults(cls) -> dict[str, Any]:
        return {}


@dataclass(frozen=True, kw_only=True, config=STRICT)
class AbstractNoiseConfig(AbstractModelConfig):
    """What a model needs to know whose noise schedule and prediction can be chosen."""

    noise_schedule: NoiseScheduleConfig = field(default_factory=NoiseScheduleConfig)
    """How noise grows over the timesteps."""
    prediction_type: PredictionType = "epsilon"
    """What the network predicts: the noise (`epsilon`), the clean image (`sample`), v = alpha·eps −
    sigma·x0 (`v_prediction`), the `score`, the flow's `velocity`, or the mixture of Karras et al. (2022),
    `edm`."""
    sigma_data: Annotated[float, Field(gt=0.0)] | None = None
    """Standard deviation of what is denoised, for the prediction `edm`; None: 0.5 for images in [−1, 1], 1
    for latents."""

    @model_validator(mode="after")
    def _prediction_fits_schedule(self) -> "AbstractNoiseConfig":
        noise, prediction = self.noise_schedule, self.prediction_type
        if noise.signal_vanishes and prediction in _NEED_SIGNAL:
            raise ValueError(
                f"prediction_type={prediction!r} cannot be used with this noise_schedule: no "
                "signal is left at its "
                "end, where x0 cannot be found from such a prediction; choose 'v_prediction' "
                "or 'sample', or "
                "'velocity' with schedule_type='flow'"
            )
        if noise.rescale_zero_terminal_snr and prediction == "velocity":
            raise ValueError(
                "prediction_type='velocity' cannot be used with rescale_zero_terminal_snr: "
                "the signal then vanishes so "
                "steeply that the velocity is infinite at t = 1; choose 'v_prediction' or 'sample', or "
                "schedule_type='flow'"
            )
        return self

    @property
    def data_std(self) -> float:
        """The standard deviation of what is denoised."""
        return PIXEL_STD if self.sigma_data is None else self.sigma_data


@dataclass(frozen=True, kw_only=True, config=STRICT)
class AbstractScheduledConfig(AbstractNoiseConfig, AbstractDiffusionConfig):
    """What a model needs to know whose backbone, noise schedule and prediction can be chosen."""

    @classmethod
    def _data_defaults(cls) -> dict[str, Any]:
        # A cosine schedule and v train well at every image size (Salimans & Ho 2022).
        return {
            "noise_schedule": NoiseScheduleConfig(schedule_type="cosine"),
            "prediction_type": "v_prediction",
        }


@dataclass(frozen=True, kw_only=True, config=STRICT)
class DDPMConfig(AbstractScheduledConfig):
    """A model sampled by ancestral sampling over all timesteps (Ho et al. 2020)."""

    kind: Literal["ddpm"] = "ddpm"
    """The kind of model, by which its file is read."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class DDIMConfig(AbstractScheduledConfig):
    """A model sampled by DDIM (Song et al. 2021)."""

    kind: Literal["ddim"] = "ddim"
    """The kind of model, by which its file is read."""
    num_inference_steps: Annotated[int, Field(ge=1)] = 50
    """Steps of sampling, unless told otherwise."""
    eta: Annotated[float, Field(ge=0.0, le=1.0)] = 0.0
    """Noise of a step: 0 for deterministic sampling, 1 for as much as DDPM adds."""

    @model_validator(mode="after")
    def _steps_exist(self) -> "DDIMConfig":
        if self.num_inference_steps > self.noise_schedule.num_timesteps:
            raise ValueError(
                f"num_inference_steps={self.num_inference_steps} exceeds the "
                f"{self.noise_schedule.num_timesteps} timesteps of the noise schedule"
            )
        return self

    @property
    def usual_sampler(self) -> SamplerConfig:
        """DDIM with the configured steps and eta."""
        return SamplerConfig(
            name="ddim", steps=self.num_inference_steps, numbers=(("eta", self.eta),)
        )


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ScoreDiffusionConfig(AbstractDiffusionConfig):
    """A model of the score, grad log p_t(x), of a diffusion in continuous time (Song et al. 2021)."""

    kind: Literal["score"] = "score"
    """The kind of model, by which its file is read."""
    sde_type: SDEType = "ve"
    """The SDE: `ve`, whose noise grows geometrically from `sigma_min` to `sigma_max`, or `vp`, whose
    beta(t) is linear from `beta_min` to `beta_max`."""
    sigma_min: Annotated[float, Field(gt=0.0)] = 0.01
    """The least standard deviation of the noise, of the `ve` SDE."""
    sigma_max: Annotated[float, Field(gt=0.0)] = 10.0
    """The greatest standard deviation of the noise, of the `ve` SDE; about as large as the greatest
    distance between two images."""
    beta_min: Annotated[float, Field(gt=0.0)] = 0.1
    """The first beta(t), of the `vp` SDE."""
    beta_max: Annotated[float, Field(gt=0.0)] = 20.0
    """The last beta(t), of the `vp` SDE."""
    prediction_type: ScorePrediction = "score"
    """What the network predicts: the `score`, or the mixture of score and clean image of Karras et al.
    (2022), `edm`, by which the error of x0 stays bounded at the greatest noise (there it is sigma times
    that of a score). Either way the model gives the score."""
    score_scaling: Annotated[float, Field(gt=0.0)] = 1.0
    """Factor of the prediction `score`, which is this times the network's output over sigma."""
    sigma_data: Annotated[float, Field(gt=0.0)] | None = None
    """Standard deviation of the data, for the prediction `edm`; None: 0.5."""
    noise_steps: Annotated[int, Field(ge=2)] = 1000
    """Noise levels that are trained."""

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
    def usual_sampler(self) -> SamplerConfig:
        """The reverse SDE by Euler-Maruyama, in as many steps as there are noise levels."""
        return SamplerConfig(name="sde:Euler")

    @property
    def data_std(self) -> float:
        """The standard deviation of what is denoised."""
        return PIXEL_STD if self.sigma_data is None else self.sigma_data

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
    """A diffusion transformer as a model of its own (Peebles & Xie 2023)."""

    kind: Literal["dit"] = "dit"
    """The kind of model, by which its file is read."""
    name: str = "dit"
    """A name for people; an artifact of the model bears it."""
    img_size: PositiveInt | tuple[PositiveInt, PositiveInt] = 32
    """Side of square images, or (height, width)."""
    channels: PositiveInt = 3
    """Channels of an image."""
    cfg_scale: Annotated[float, Field(ge=0.0)] = 1.0
    """Scale of classifier-free guidance where labels are given; 1 is none."""

    @model_validator(mode="after")
    def _patches_tile(self) -> "DiTConfig":
        height, width, _ = self.input_shape
        self.check_tiles(height, width)
        return self

    @classmethod
    def for_data(cls: type[DiTT], data: Data, **fields: Any) -> DiTT:
        """A configuration that fits a data set: its image size, channels and classes.

        `fields` are those of the class and take precedence.
        """
        height, width, channels = data.shape
        found = {"img_size": (height, width), "channels": channels, "num_classes": data.num_classes}
        return cls(**{**found, **fields})

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
