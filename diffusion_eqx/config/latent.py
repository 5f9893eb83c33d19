"""Configuration of autoencoders, and of diffusion models in their latent space."""

import dataclasses
from dataclasses import field
from typing import Annotated, Any, Literal, TypeVar

from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass

from diffusion_eqx.config.backbone import (
    Activation,
    BackboneConfig,
    PositiveInt,
    UNetBackboneConfig,
    unet_for,
)
from diffusion_eqx.config.base import STRICT
from diffusion_eqx.config.model import (
    LATENT_STD,
    AbstractScheduledConfig,
    Data,
    SamplerConfig,
)
from diffusion_eqx.config.schedule import NoiseScheduleConfig

EncoderType = Literal["simple", "vae"]
LatentT = TypeVar("LatentT", bound="LDMConfig")
Dims = Annotated[tuple[PositiveInt, ...], Field(min_length=1)]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class AutoencoderConfig:
    """A convolutional autoencoder of images."""

    name: str = "autoencoder"
    """A name for people."""
    input_shape: tuple[PositiveInt, PositiveInt, PositiveInt] = (28, 28, 1)
    """Height, width and channels of one image."""
    encoder_type: EncoderType = "vae"
    """What the encoder gives: `simple`, one latent for each image, or `vae`, a distribution (Kingma &
    Welling 2014)."""
    latent_channels: PositiveInt = 4
    """Channels of the latents."""
    encoder_hidden_dims: Dims = (32, 64)
    """Channels of each resolution, the image's own first; each further one halves the latents, rounding
    up."""
    decoder_hidden_dims: Dims = (64, 32)
    """Channels of each resolution on the way back, that of the latents first."""
    num_res_blocks: PositiveInt = 1
    """Residual blocks of each resolution."""
    kl_weight: Annotated[float, Field(ge=0.0)] = 1e-3
    """Weight of the KL divergence from N(0, 1) in the loss; for `simple`, of the part of it that acts on
    the latents, half their square."""
    activation: Activation = "silu"
    """The nonlinearity after each normalisation."""
    head_dim: PositiveInt = 32
    """Channels of one attention head."""
    norm_groups: PositiveInt = 32
    """Upper bound of the groups of group normalisation (never fewer than four channels a group)."""

    @model_validator(mode="after")
    def _levels_agree(self) -> "AutoencoderConfig":
        if len(self.encoder_hidden_dims) != len(self.decoder_hidden_dims):
            raise ValueError(
                f"encoder_hidden_dims={self.encoder_hidden_dims} and "
                f"decoder_hidden_dims={self.decoder_hidden_dims} must have as many entries: one for each "
                "resolution, the image's first for the encoder and last for the decoder"
            )
        return self

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """(height, width, channels) of the latents of one image."""
        height, width, _ = self.input_shape
        for _ in self.encoder_hidden_dims[1:]:
            height, width = -(-height // 2), -(-width // 2)
        return height, width, self.latent_channels


@dataclass(frozen=True, kw_only=True, config=STRICT)
class LDMConfig(AbstractScheduledConfig):
    """A diffusion model in the latent space of an autoencoder (Rombach et al. 2022).

    `input_shape` is that of the images; the backbone denoises their latents.
    """

    kind: Literal["ldm"] = "ldm"
    """The kind of model, by which its file is read."""
    backbone: BackboneConfig = field(
        default_factory=lambda: UNetBackboneConfig(in_channels=4, out_channels=4)
    )
    """The network that denoises latents, a U-Net or a diffusion transformer."""
    latent_dim: PositiveInt = 4
    """Channels of the latents, which are those of the backbone."""
    encoder_type: EncoderType = "vae"
    """What the encoder gives: `simple`, one latent for each image, or `vae`, a distribution (Kingma &
    Welling 2014)."""
    encoder_hidden_dims: Dims = (32, 64)
    """Channels of each resolution of the encoder, the image's own first; each further one halves the
    latents, rounding up."""
    decoder_hidden_dims: Dims = (64, 32)
    """Channels of each resolution of the decoder, that of the latents first."""
    kl_weight: Annotated[float, Field(ge=0.0)] = 1e-3
    """Weight of the KL divergence from N(0, 1) in the autoencoder's loss; for `simple`, of the part of it
    that acts on the latents, half their square."""
    scale_factor: Annotated[float, Field(gt=0.0)] | None = None
    """What latents are multiplied by, to be of unit size; None: to be measured on data, as one over their
    standard deviation (Rombach et al. 2022, appendix G)."""
    noise_steps: PositiveInt | None = None
    """If given, it takes the place of `num_timesteps` in `noise_schedule`."""
    beta_start: float | None = None
    """If given, it takes the place of `beta_start` in `noise_schedule`."""
    beta_end: float | None = None
    """If given, it takes the place of `beta_end` in `noise_schedule`."""
    clip_denoised: Literal[False] = False
    """Always false, latents having no range to be clipped to; images are clipped when they are decoded."""

    @model_validator(mode="after")
    def _schedule_is_one(self) -> "LDMConfig":
        given = {
            "num_timesteps": self.noise_steps,
            "beta_start": self.beta_start,
            "beta_end": self.beta_end,
        }
        changes = {name: value for name, value in given.items() if value is not None}
        schedule: NoiseScheduleConfig = dataclasses.replace(self.noise_schedule, **changes)
        object.__setattr__(self, "noise_schedule", schedule)
        return self

    @property
    def autoencoder(self) -> AutoencoderConfig:
        """The configuration of the autoencoder that these numbers describe."""
        return AutoencoderConfig(
            input_shape=self.input_shape,
            encoder_type=self.encoder_type,
            latent_channels=self.latent_dim,
            encoder_hidden_dims=self.encoder_hidden_dims,
            decoder_hidden_dims=self.decoder_hidden_dims,
            kl_weight=self.kl_weight,
        )

    @property
    def usual_sampler(self) -> SamplerConfig:
        """DDIM in 50 steps, or as many as there are timesteps."""
        return SamplerConfig(name="ddim", steps=min(50, self.noise_schedule.num_timesteps))

    @property
    def data_std(self) -> float:
        """The standard deviation of what is denoised: latents are scaled to 1."""
        return LATENT_STD if self.sigma_data is None else self.sigma_data

    @classmethod
    def for_data(cls: type[LatentT], data: Data, **fields: Any) -> LatentT:
        """A configuration that fits a data set: its image shape and classes, and a U-Net for its latents.

        `fields` are those of the class and take precedence.
        """
        height, width, channels = data.shape
        fields.setdefault("input_shape", (height, width, channels))
        if "backbone" not in fields:
            latent = fields.get("latent_dim", 4)
            halvings = len(fields.get("encoder_hidden_dims", (32, 64))) - 1
            size = (-(-height // 2**halvings), -(-width // 2**halvings))
            fields["backbone"] = unet_for(size, latent, data.num_classes)
        return cls(**{**cls._data_defaults(), **fields})

    @property
    def sample_shape(self) -> tuple[int, int, int]:
        """(height, width, channels) of the latents of one image."""
        return self.autoencoder.latent_shape
