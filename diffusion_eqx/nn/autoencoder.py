"""Autoencoders: from images to latents, smaller arrays in which a diffusion is trained, and back."""

from abc import abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from diffusion_eqx._typing import Images, Keys, Latents, PRNGKey
from diffusion_eqx.nn.attention import SpatialSelfAttention
from diffusion_eqx.nn.conv import Conv, upsample_to
from diffusion_eqx.nn.norm import GroupNorm
from diffusion_eqx.nn.resblock import ResBlock
from diffusion_eqx.precision import wide
from diffusion_eqx.random_keys import normal

Shape = tuple[int, int, int]

# Beyond these, exp or its inverse overflows in float32 (Rombach et al. 2022 have the same limits).
_LOG_VARIANCE = (-30.0, 20.0)


class LatentDistribution(NamedTuple):
    """What an encoder says of the latents of each image: N(mean, exp(log_variance)), or the mean alone.

    - `mean`: (batch, height, width, channels) of the latents
    - `log_variance`: of the same shape, or None
    """

    mean: Latents
    log_variance: Latents | None

    def sample(self, *, key: Keys) -> Latents:
        """mean + std·noise (Kingma & Welling 2014, section 2.4); without a variance, the mean.

        The noise is drawn in float32 (in float64 for float64), so that it is the same in every lower
        precision; the result has the dtype of the mean.
        """
        if self.log_variance is None:
            return self.mean
        dtype = wide(self.mean.dtype)
        noise = normal(key, self.mean.shape, dtype)
        std = jnp.exp(0.5 * self.log_variance.astype(dtype))
        return (self.mean.astype(dtype) + std * noise).astype(self.mean.dtype)

    def divergence(self) -> Float[Array, " batch"]:
        """KL(N(mean, variance) ‖ N(0, 1)) of each image, summed over its latents, in nats.

        ½·Σ (mean² + variance − 1 − log variance) (Kingma & Welling 2014, appendix B). Without a variance
        this is the part that acts on the mean, ½·Σ mean² (Ghosh et al. 2020, section 3). The result is
        float32, or float64 for float64.
        """
        dtype = wide(self.mean.dtype)
        terms = self.mean.astype(dtype) ** 2
        if self.log_variance is not None:
            log_variance = self.log_variance.astype(dtype)
            # expm1: near a variance of 1, rounding of variance − 1 would drown what is looked for.
            terms = terms + jnp.expm1(log_variance) - log_variance
        return 0.5 * terms.sum(axis=(1, 2, 3))


class AbstractAutoencoder(eqx.Module):
    """Encodes images of `image_shape` to latents of `latent_shape`, and decodes them.

    Both shapes are (height, width, channels). Latent diffusion needs no more than this, so any pretrained
    autoencoder that is wrapped in this form can be used.
    """

    # A type checker takes an AbstractVar for an argument of __init__, but not a ClassVar.
    if TYPE_CHECKING:
        image_shape: ClassVar[Shape]
        latent_shape: ClassVar[Shape]
    else:
        image_shape: eqx.AbstractVar[Shape]
        latent_shape: eqx.AbstractVar[Shape]

    @abstractmethod
    def encode_distribution(self, x: Images) -> LatentDistribution:
        """The distribution of the latents of images in [−1, 1].

        (batch, *image_shape) to (batch, *latent_shape).
        """

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
    """norm · activation · conv: from features to the result."""

    norm: GroupNorm
    conv: Conv

    def __call__(self, h: Images) -> Float[Array, "batch height width out_channels"]:
        return self.conv(self.norm(h))


class _Maker:
    """Makes the parts of an autoencoder, which share their settings, each with a key of its own."""

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
        norm = GroupNorm(inside, max_groups=self._norm_groups, activation=self._activation)
        return _Head(norm, Conv(inside, outside, 3, key=self.key()))


class _Encoder(eqx.Module):
    """Residual blocks at each resolution; convolutions of stride 2 halve it and round up."""

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
    """The way back: residual blocks at each resolution, doubled by repeating pixels and a convolution."""

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
    """A convolutional autoencoder for images of one size (after Rombach et al. 2022, appendix G).

    - `image_shape`: (height, width, channels), any size
    - `latent_channels`: the latents' channels
    - `encoder_dims`: channels of each resolution, that of the image first. Each further entry halves the
      latents and rounds up.
    - `decoder_dims`: channels of each resolution on the way back, that of the latents first
    - `num_res_blocks`: of each resolution
    - `variational`: whether the encoder gives a mean and a log-variance (Kingma & Welling 2014) instead of
      a mean alone; encoder and decoder then attend at the coarsest resolution
    - `activation`: a function of one array
    - `head_dim`: features of an attention head
    - `norm_groups`: the most groups of a normalisation

    **Raises:** `ValueError` unless encoder and decoder have equally many levels, and if the channels of a
    level that attends cannot be divided into heads.
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
                "encoder_dims and decoder_dims need equally many levels; got "
                f"{encoder_dims} and {decoder_dims}"
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
        """The distribution of the latents, without a variance if the autoencoder is not variational.

        (batch, *image_shape) to (batch, *latent_shape), in the dtype of the weights.

        **Raises:** `ValueError` if the images do not have `image_shape`; `TypeError` if they have another
        dtype than the weights.
        """
        _check(x, self.image_shape, "encodes images")
        features = self.encoder(x)
        if not self.variational:
            return LatentDistribution(features, None)
        mean, log_variance = jnp.split(features, 2, axis=-1)
        return LatentDistribution(mean, jnp.clip(log_variance, *_LOG_VARIANCE))

    def decode(self, z: Latents) -> Images:
        """Latents (batch, *latent_shape) to images (batch, *image_shape), not clipped.

        **Raises:** `ValueError` if the latents do not have `latent_shape`; `TypeError` if they have another
        dtype than the weights.
        """
        _check(z, self.latent_shape, "decodes latents")
        return self.decoder(z)


def _check(x: Images, shape: Shape, what: str) -> None:
    if x.shape[1:] != shape:
        raise ValueError(f"this autoencoder {what} of shape {shape}; got {x.shape[1:]}")
