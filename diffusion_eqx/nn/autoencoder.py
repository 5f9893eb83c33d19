"""Autoencoders: images to the smaller arrays, latents, in which a diffusion can be trained, and back."""

from abc import abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from diffusion_eqx._typing import Images, Latents, PRNGKey
from diffusion_eqx.nn.attention import SpatialSelfAttention
from diffusion_eqx.nn.conv import Conv, upsample_to
from diffusion_eqx.nn.norm import GroupNorm, largest_group_count
from diffusion_eqx.nn.resblock import ResBlock

Shape = tuple[int, int, int]

# Beyond these, exp or its inverse overflows in float32 (Rombach et al. 2022 limit it likewise).
_LOG_VARIANCE = (-30.0, 20.0)


class LatentDistribution(NamedTuple):
    """What an encoder says of the latents of each image: N(mean, exp(log_variance)), or just the mean."""

    mean: Latents
    log_variance: Latents | None

    def sample(self, *, key: PRNGKey) -> Latents:
        """mean + std·noise (Kingma & Welling 2014, section 2.4); without a variance, the mean."""
        if self.log_variance is None:
            return self.mean
        noise = jax.random.normal(key, self.mean.shape, self.mean.dtype)
        return self.mean + jnp.exp(0.5 * self.log_variance) * noise

    def divergence(self) -> Float[Array, " batch"]:
        """KL(N(mean, variance) ‖ N(0, 1)) of each image, summed over its latents.

        ½·Σ (mean² + variance − 1 − log variance) (Kingma & Welling 2014, appendix B). Without a variance
        only the part that acts on the mean, ½·Σ mean² (Ghosh et al. 2020, section 3).
        """
        terms = self.mean**2
        if self.log_variance is not None:
            # expm1: 1 − 1 of float32 would drown what a variance near 1 differs by.
            terms = terms + jnp.expm1(self.log_variance) - self.log_variance
        return 0.5 * terms.sum(axis=(1, 2, 3))


class AbstractAutoencoder(eqx.Module):
    """Encodes images of `image_shape` to latents of `latent_shape`, and decodes those.

    Both are (height, width, channels). Latent diffusion asks for no more, so any pretrained autoencoder
    can be used that is put into this form.
    """

    # A type checker takes an AbstractVar for an argument of __init__, a ClassVar not.
    if TYPE_CHECKING:
        image_shape: ClassVar[Shape]
        latent_shape: ClassVar[Shape]
    else:
        image_shape: eqx.AbstractVar[Shape]
        latent_shape: eqx.AbstractVar[Shape]

    @abstractmethod
    def encode_distribution(self, x: Images) -> LatentDistribution:
        """What is known of the latents of images in [−1, 1]; arrays (batch, *latent_shape)."""

    @abstractmethod
    def decode(self, z: Latents) -> Images:
        """Latents (batch, *latent_shape) to images (batch, *image_shape), not clipped."""

    def encode(self, x: Images) -> Latents:
        """The mean of `encode_distribution`: (batch, *image_shape) to (batch, *latent_shape)."""
        return self.encode_distribution(x).mean


class _Level(eqx.Module):
    """The residual blocks of one resolution and the convolution to or from its neighbour."""

    blocks: list[ResBlock]
    resample: Conv | None


class _Middle(eqx.Module):
    """At the coarsest resolution: a block, or two with attention between them."""

    first: ResBlock
    attention: SpatialSelfAttention | None
    second: ResBlock | None

    def __call__(self, h: Images) -> Images:
        h = self.first(h)
        if self.attention is not None:
            h = self.attention(h)
        return h if self.second is None else self.second(h)


class _Head(eqx.Module):
    """norm · act · conv: from features to what is given out."""

    norm: GroupNorm
    conv: Conv
    activation: Callable | None = eqx.field(static=True)

    def __call__(self, h: Images) -> Float[Array, "batch height width out_channels"]:
        h = self.norm(h)
        return self.conv(h if self.activation is None else self.activation(h))


class _Maker:
    """Makes parts that share their settings, each with a key of its own."""

    def __init__(self, activation: Callable, head_dim: int, norm_groups: int, key: PRNGKey):
        self._activation = activation
        self._head_dim = head_dim
        self._norm_groups = norm_groups
        self._key = key
        self._made = 0

    def key(self) -> PRNGKey:
        self._made += 1
        return jax.random.fold_in(self._key, self._made)

    def blocks(self, inside: int, outside: int, count: int) -> list[ResBlock]:
        return [
            ResBlock(
                inside if number == 0 else outside,
                outside,
                None,
                activation=self._activation,
                dropout=0.0,
                norm_groups=self._norm_groups,
                key=self.key(),
            )
            for number in range(count)
        ]

    def middle(self, channels: int, attend: bool) -> _Middle:
        if not attend:
            return _Middle(self.blocks(channels, channels, 1)[0], None, None)
        first, second = self.blocks(channels, channels, 2)
        attention = SpatialSelfAttention(
            channels, head_dim=self._head_dim, norm_groups=self._norm_groups, key=self.key()
        )
        return _Middle(first, attention, second)

    def head(self, inside: int, outside: int) -> _Head:
        fused = self._activation is jax.nn.silu
        groups = largest_group_count(inside, self._norm_groups)
        norm = GroupNorm(inside, groups, silu=fused)
        conv = Conv(inside, outside, 3, key=self.key())
        return _Head(norm, conv, None if fused else self._activation)


class _Encoder(eqx.Module):
    """Residual blocks at each resolution, halved (rounding up) by convolutions of stride 2."""

    conv_in: Conv
    levels: list[_Level]
    middle: _Middle
    head: _Head

    def __init__(
        self,
        inside: int,
        outside: int,
        dims: tuple[int, ...],
        blocks: int,
        attend: bool,
        make: _Maker,
    ):
        self.conv_in = Conv(inside, dims[0], 3, key=make.key())
        self.levels = []
        for level, width in enumerate(dims):
            before = dims[max(level - 1, 0)]
            last = level == len(dims) - 1
            resample = None if last else Conv(width, width, 3, stride=2, key=make.key())
            self.levels.append(_Level(make.blocks(before, width, blocks), resample))
        self.middle = make.middle(dims[-1], attend)
        self.head = make.head(dims[-1], outside)

    def __call__(self, x: Images) -> Latents:
        h = self.conv_in(x)
        for level in self.levels:
            for block in level.blocks:
                h = block(h)
            if level.resample is not None:
                h = level.resample(h)
        return self.head(self.middle(h))


class _Decoder(eqx.Module):
    """The way back: blocks at each resolution, doubled by repetition and a convolution."""

    conv_in: Conv
    middle: _Middle
    levels: list[_Level]
    head: _Head
    sizes: tuple[tuple[int, int], ...] = eqx.field(static=True)

    def __init__(
        self,
        inside: int,
        outside: int,
        dims: tuple[int, ...],
        sizes: tuple[tuple[int, int], ...],
        blocks: int,
        attend: bool,
        make: _Maker,
    ):
        """`dims` and `sizes` of each level, the coarsest first."""
        self.sizes = sizes
        self.conv_in = Conv(inside, dims[0], 3, key=make.key())
        self.middle = make.middle(dims[0], attend)
        self.levels = []
        for level, width in enumerate(dims):
            before = dims[max(level - 1, 0)]
            resample = None if level == 0 else Conv(before, before, 3, key=make.key())
            self.levels.append(_Level(make.blocks(before, width, blocks), resample))
        self.head = make.head(dims[-1], outside)

    def __call__(self, z: Latents) -> Images:
        h = self.middle(self.conv_in(z))
        for level, size in zip(self.levels, self.sizes, strict=True):
            if level.resample is not None:
                h = level.resample(upsample_to(h, *size))
            for block in level.blocks:
                h = block(h)
        return self.head(h)


class ConvAutoencoder(AbstractAutoencoder):
    """A convolutional autoencoder for images of one size, any size (after Rombach et al. 2022, appendix G).

    `encoder_dims`: channels of each resolution, the image's own first; `decoder_dims`: the same on the way
    back, the latents' first. Each further entry halves the latents, rounding up. With `variational`, the
    encoder gives a mean and a log-variance (Kingma & Welling 2014) and both ends attend; else the mean
    alone.

    **Raises:** `ValueError` unless encoder and decoder have as many levels.
    """

    encoder: _Encoder
    decoder: _Decoder
    image_shape: Shape = eqx.field(static=True)
    latent_shape: Shape = eqx.field(static=True)
    variational: bool = eqx.field(static=True)

    def __init__(
        self,
        *,
        image_shape: Shape,
        latent_channels: int,
        encoder_dims: tuple[int, ...],
        decoder_dims: tuple[int, ...],
        num_res_blocks: int,
        variational: bool,
        activation: Callable,
        head_dim: int,
        norm_groups: int,
        key: PRNGKey,
    ):
        if len(encoder_dims) != len(decoder_dims):
            raise ValueError(
                f"encoder and decoder need as many levels; got {encoder_dims} and {decoder_dims}"
            )
        height, width, channels = image_shape
        sizes = [(height, width)]
        while len(sizes) < len(encoder_dims):
            height, width = -(-height // 2), -(-width // 2)
            sizes.append((height, width))
        self.image_shape = image_shape
        self.latent_shape = (height, width, latent_channels)
        self.variational = variational
        make = _Maker(activation, head_dim, norm_groups, key)
        outside = latent_channels * (2 if variational else 1)
        self.encoder = _Encoder(channels, outside, encoder_dims, num_res_blocks, variational, make)
        self.decoder = _Decoder(
            latent_channels,
            channels,
            decoder_dims,
            tuple(reversed(sizes)),
            num_res_blocks,
            variational,
            make,
        )

    def encode_distribution(self, x: Images) -> LatentDistribution:
        """The latents' distribution; without a variance if the autoencoder is not variational.

        **Raises:** `ValueError` if the images are not of `image_shape`.
        """
        _check(x, self.image_shape, "encodes images")
        features = self.encoder(x)
        if not self.variational:
            return LatentDistribution(features, None)
        mean, log_variance = jnp.split(features, 2, axis=-1)
        return LatentDistribution(mean, jnp.clip(log_variance, *_LOG_VARIANCE))

    def decode(self, z: Latents) -> Images:
        """Latents to images, not clipped.

        **Raises:** `ValueError` if the latents are not of `latent_shape`.
        """
        _check(z, self.latent_shape, "decodes latents")
        return self.decoder(z)


def _check(x: Images, shape: Shape, what: str) -> None:
    if x.shape[1:] != shape:
        raise ValueError(f"this autoencoder {what} of shape {shape}; got {x.shape[1:]}")
