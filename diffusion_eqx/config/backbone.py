"""Configuration of backbones."""

from typing import Annotated, Literal

from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass

from diffusion_eqx.config.base import STRICT

Activation = Literal["silu", "gelu", "relu", "mish", "tanh"]
PositiveInt = Annotated[int, Field(ge=1)]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class UNetBackboneConfig:
    """A U-Net with residual blocks and self-attention (Ho et al. 2020; Dhariwal & Nichol 2021).

    **Fields:**

    - `hidden_dims`: channels of each level, the finest first; each further level halves the image.
    - `in_channels`, `out_channels`: channels of the noisy input and of the output.
    - `activation`: the nonlinearity after each normalisation.
    - `time_embedding_dim`: width of the time (and class) embedding.
    - `attention_resolutions`: image sizes at which residual blocks are followed by attention. A size
      `r` picks the level whose longer side `s` has `r/2 < s <= r`: 8 means the 7x7 level of a 28x28
      image and the 8x8 level of a 32x32 one.
    - `num_res_blocks`: residual blocks of each level on the way down (one more on the way up).
    - `channel_mult`: the levels' channels as multiples of `hidden_dims[0]`. With more than one entry
      in `hidden_dims` both say the same and must agree.
    - `dropout`: probability of dropping a feature inside residual blocks while training.
    - `num_classes`: number of classes for class-conditional models, else None.
    - `head_dim`: channels of one attention head.
    - `norm_groups`: upper bound of the groups of group normalisation (never fewer than four channels
      a group).
    """

    name: str = "unet"
    hidden_dims: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] = (64, 128, 256)
    in_channels: Annotated[int, Field(ge=1)] = 1
    out_channels: Annotated[int, Field(ge=1)] = 1
    activation: Activation = "silu"
    time_embedding_dim: Annotated[int, Field(ge=2, multiple_of=2)] = 128
    attention_resolutions: tuple[PositiveInt, ...] = ()
    num_res_blocks: Annotated[int, Field(ge=1)] = 1
    channel_mult: tuple[PositiveInt, ...] | None = None
    dropout: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    num_classes: Annotated[int | None, Field(ge=1)] = None
    head_dim: Annotated[int, Field(ge=1)] = 32
    norm_groups: Annotated[int, Field(ge=1)] = 32

    @model_validator(mode="after")
    def _channels_agree(self) -> "UNetBackboneConfig":
        if self.channel_mult is not None and len(self.hidden_dims) > 1:
            expected = tuple(self.hidden_dims[0] * m for m in self.channel_mult)
            if expected != self.hidden_dims:
                raise ValueError(
                    f"hidden_dims={self.hidden_dims} and channel_mult={self.channel_mult} disagree: "
                    f"multiples of {self.hidden_dims[0]} give {expected}; leave out channel_mult, or "
                    f"give hidden_dims=({self.hidden_dims[0]},) alone with it"
                )
        return self

    @property
    def channels(self) -> tuple[int, ...]:
        """Channels of each level, the finest first."""
        if self.channel_mult is None:
            return self.hidden_dims
        return tuple(self.hidden_dims[0] * m for m in self.channel_mult)
