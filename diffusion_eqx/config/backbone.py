"""Configuration of backbones."""

from typing import Annotated, Any, Literal, TypedDict

from pydantic import Discriminator, Field, Tag, model_validator
from pydantic.dataclasses import dataclass

from diffusion_eqx.config.base import STRICT

Activation = Literal["silu", "gelu", "relu", "mish", "tanh"]
PositiveInt = Annotated[int, Field(ge=1)]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class UNetBackboneConfig:
    """A U-Net with residual blocks and self-attention (Ho et al. 2020; Dhariwal & Nichol 2021)."""

    kind: Literal["unet"] = "unet"
    """The kind of backbone, by which its file is read."""
    name: str = "unet"
    """A name for people."""
    hidden_dims: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] = (64, 128, 256)
    """Channels of each level, the finest first; each further level halves the image."""
    in_channels: Annotated[int, Field(ge=1)] = 1
    """Channels of the noisy input."""
    out_channels: Annotated[int, Field(ge=1)] = 1
    """Channels of the output."""
    activation: Activation = "silu"
    """The nonlinearity after each normalisation."""
    time_embedding_dim: Annotated[int, Field(ge=2, multiple_of=2)] = 128
    """Width of the time (and class) embedding."""
    attention_resolutions: tuple[PositiveInt, ...] = ()
    """Image sizes at which attention follows the residual blocks. A size `r` picks the level whose longer
    side `s` has `r/2 < s <= r`: 8 means the 7x7 level of a 28x28 image and the 8x8 level of a 32x32
    one."""
    num_res_blocks: Annotated[int, Field(ge=1)] = 1
    """Residual blocks of each level on the way down (one more on the way up)."""
    channel_mult: tuple[PositiveInt, ...] | None = None
    """The levels' channels as multiples of `hidden_dims[0]`; None: `hidden_dims` says them. With more than
    one entry in `hidden_dims` both say the same and must agree."""
    dropout: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    """Probability of dropping a feature inside residual blocks while training."""
    num_classes: Annotated[int | None, Field(ge=1)] = None
    """Number of classes of a class-conditional model, else None."""
    learn_sigma: bool = False
    """Learn the variance of a denoising step too (Nichol & Dhariwal 2021); the network then gives twice
    `out_channels`."""
    head_dim: Annotated[int, Field(ge=1)] = 32
    """Channels of one attention head."""
    norm_groups: Annotated[int, Field(ge=1)] = 32
    """Upper bound of the groups of group normalisation (never fewer than four channels a group)."""

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


def unet_for(size: tuple[int, int], channels: int, num_classes: int | None) -> UNetBackboneConfig:
    """A U-Net of modest size for images of (height, width): halved until at most 8 pixels are left,
    where it attends.

    It trains on two CPU cores at 28x28 pixels, and has twice the width from 33 pixels on.
    """
    side, levels = max(size), 1
    while side > 8 and levels < 5:
        side, levels = -(-side // 2), levels + 1
    width = 16 if max(size) <= 32 else 32
    return UNetBackboneConfig(
        hidden_dims=tuple(width * 2 ** min(level, 3) for level in range(levels)),
        in_channels=channels,
        out_channels=channels,
        attention_resolutions=(side,),
        num_classes=num_classes,
    )


@dataclass(frozen=True, kw_only=True, config=STRICT)
class AbstractDiTConfig:
    """The sizes of a diffusion transformer (Peebles & Xie 2023); see `dit_size` for those of the paper."""

    patch_size: Annotated[int, Field(ge=1)] = 2
    """Side of the square patches that become tokens; it must divide both sides of an image."""
    hidden_size: Annotated[int, Field(ge=4, multiple_of=4)] = 384
    """Features of a token; a multiple of 4 and of `num_heads`."""
    depth: Annotated[int, Field(ge=1)] = 12
    """Number of transformer blocks."""
    num_heads: Annotated[int, Field(ge=1)] = 6
    """Attention heads of a block."""
    mlp_ratio: Annotated[float, Field(gt=0.0)] = 4.0
    """Features inside of a block's perceptron, as a multiple of `hidden_size`."""
    num_classes: Annotated[int | None, Field(ge=1)] = None
    """Number of classes of a class-conditional model, else None."""
    dropout_rate: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    """Probability of dropping a feature inside blocks while training."""
    learn_sigma: bool = False
    """Learn the variance of a denoising step too (Nichol & Dhariwal 2021); the network then gives twice
    the channels."""

    @model_validator(mode="after")
    def _heads_divide(self) -> "AbstractDiTConfig":
        if self.hidden_size % self.num_heads:
            raise ValueError(
                f"hidden_size={self.hidden_size} cannot be divided into num_heads={self.num_heads}: "
                "choose a multiple"
            )
        if int(self.hidden_size * self.mlp_ratio) < 1:
            raise ValueError(
                f"mlp_ratio={self.mlp_ratio} leaves no feature of hidden_size={self.hidden_size}"
            )
        return self

    def check_tiles(self, height: int, width: int) -> None:
        """**Raises:** `ValueError` if patches do not tile an image of this size."""
        if height % self.patch_size or width % self.patch_size:
            raise ValueError(
                f"patch_size={self.patch_size} does not divide an image of {height}x{width} pixels: "
                "choose a divisor of both sides"
            )


@dataclass(frozen=True, kw_only=True, config=STRICT)
class DiTBackboneConfig(AbstractDiTConfig):
    """A diffusion transformer as the backbone of any model."""

    kind: Literal["dit"] = "dit"
    """The kind of backbone, by which its file is read."""
    name: str = "dit"
    """A name for people."""
    in_channels: Annotated[int, Field(ge=1)] = 1
    """Channels of the noisy input, and of the output (twice with `learn_sigma`)."""

    @property
    def out_channels(self) -> int:
        """Channels of the prediction, those of the variance not counted."""
        return self.in_channels


class DiTSize(TypedDict):
    """The four numbers that a name such as S/2 stands for."""

    patch_size: int
    hidden_size: int
    depth: int
    num_heads: int


# Depth, width and heads (Peebles & Xie 2023, table 1).
_SIZES = {"S": (12, 384, 6), "B": (12, 768, 12), "L": (24, 1024, 16), "XL": (28, 1152, 16)}
_PATCHES = (2, 4, 8)


def dit_size(name: str) -> DiTSize:
    """The sizes of the paper by name: S, B, L or XL, a slash, and the patch size 2, 4 or 8.

    To be spread over a configuration: `DiTConfig(**dit_size("S/2"), num_classes=10)`.

    **Raises:** `ValueError` for any other name.
    """
    size, _, patch = name.partition("/")
    if size not in _SIZES or patch not in map(str, _PATCHES):
        known = ", ".join(f"{size}/{patch}" for size in _SIZES for patch in _PATCHES)
        raise ValueError(f"there is no DiT size {name!r}; choose one of {known}")
    depth, hidden_size, num_heads = _SIZES[size]
    return DiTSize(patch_size=int(patch), hidden_size=hidden_size, depth=depth, num_heads=num_heads)


def _kind(value: Any) -> str:
    """The kind of a backbone's configuration; files from before there were several say none."""
    return value.get("kind", "unet") if isinstance(value, dict) else getattr(value, "kind", "")


BackboneConfig = Annotated[
    Annotated[UNetBackboneConfig, Tag("unet")] | Annotated[DiTBackboneConfig, Tag("dit")],
    Discriminator(_kind),
]
