"""From configurations to the parts of a model."""

from diffusion_eqx._once import run_once
from diffusion_eqx._typing import PRNGKey
from diffusion_eqx.config import (
    AutoencoderConfig,
    BackboneConfig,
    DiTBackboneConfig,
    ModelConfig,
    NoiseScheduleConfig,
    ScoreDiffusionConfig,
    UNetBackboneConfig,
)
from diffusion_eqx.denoiser import Denoiser
from diffusion_eqx.nn import ACTIVATIONS, ConvAutoencoder, DiT, UNet
from diffusion_eqx.parameterizations import build_parameterization
from diffusion_eqx.schedules import (
    AbstractSchedule,
    DiscreteSchedule,
    EDMSchedule,
    FlowSchedule,
    VESchedule,
    VPSchedule,
    cosine_betas,
    linear_betas,
    rescale_zero_terminal_snr,
    scaled_linear_betas,
    sigmoid_betas,
)


def build_schedule(config: NoiseScheduleConfig) -> AbstractSchedule:
    """The schedule that a configuration describes."""
    total = config.num_timesteps
    first, last = config.betas
    match config.schedule_type:
        case "flow":
            return FlowSchedule(num_timesteps=total)
        case "vp":
            return VPSchedule(first * total, last * total, num_timesteps=total)
        case "ve":
            return VESchedule(config.sigma_min, config.sigma_max, num_timesteps=total)
        case "edm":
            return EDMSchedule(config.sigma_min, config.sigma_max, num_timesteps=total)
        case "cosine":
            betas = cosine_betas(total)
        case "linear":
            betas = linear_betas(total, first, last)
        case "scaled_linear":
            betas = scaled_linear_betas(total, first, last)
        case "sigmoid":
            betas = sigmoid_betas(total, first, last)
    return DiscreteSchedule(
        rescale_zero_terminal_snr(betas) if config.rescale_zero_terminal_snr else betas
    )


def build_denoiser(config: ModelConfig, *, key: PRNGKey) -> Denoiser:
    """The denoiser that a model's configuration describes, with fresh weights.

    Its null condition is the label that means "no class".
    """
    scaling = config.score_scaling if isinstance(config, ScoreDiffusionConfig) else 1.0
    return Denoiser(
        backbone=build_backbone(config.backbone, config.sample_shape[:2], key=key),
        schedule=build_schedule(config.noise_schedule),
        parameterization=build_parameterization(
            config.prediction_type, score_scaling=scaling, data_std=config.data_std
        ),
        null=config.backbone.num_classes,
        learned_variance=config.backbone.learn_sigma,
    )


def build_backbone(
    config: BackboneConfig, image_size: tuple[int, int], *, key: PRNGKey
) -> UNet | DiT:
    """The network that a configuration describes, with fresh weights, for images of (height, width).

    **Raises:** `ValueError` as `build_unet`.
    """
    match config:
        case UNetBackboneConfig():
            return run_once(build_unet, config, image_size, key=key)
        case DiTBackboneConfig():
            return run_once(build_dit, config, key=key)


def build_dit(config: DiTBackboneConfig, *, key: PRNGKey) -> DiT:
    """A diffusion transformer with fresh weights, for images of any size that its patches tile."""
    return DiT(
        in_channels=config.in_channels,
        out_channels=config.out_channels * (2 if config.learn_sigma else 1),
        patch_size=config.patch_size,
        dim=config.hidden_size,
        depth=config.depth,
        heads=config.num_heads,
        mlp_ratio=config.mlp_ratio,
        num_classes=config.num_classes,
        dropout=config.dropout_rate,
        key=key,
    )


def build_unet(config: UNetBackboneConfig, image_size: tuple[int, int], *, key: PRNGKey) -> UNet:
    """A U-Net with fresh weights. `image_size`, (height, width), decides which levels attend.

    **Raises:** `ValueError` if an attention resolution is that of no level.
    """
    return UNet(
        in_channels=config.in_channels,
        out_channels=config.out_channels * (2 if config.learn_sigma else 1),
        channels=config.channels,
        num_res_blocks=config.num_res_blocks,
        attention_levels=attention_levels(config, image_size),
        embedding_dim=config.time_embedding_dim,
        num_classes=config.num_classes,
        activation=ACTIVATIONS[config.activation],
        dropout=config.dropout,
        head_dim=config.head_dim,
        norm_groups=config.norm_groups,
        key=key,
    )


def attention_levels(config: UNetBackboneConfig, image_size: tuple[int, int]) -> tuple[int, ...]:
    """The levels that `attention_resolutions` pick: those whose longer side s has r/2 < s <= r.

    **Raises:** `ValueError` if a resolution picks none.
    """
    sizes = [max(image_size)]
    while len(sizes) < len(config.channels):
        sizes.append(-(-sizes[-1] // 2))
    picked = []
    for resolution in config.attention_resolutions:
        levels = [
            level for level, size in enumerate(sizes) if resolution < 2 * size <= 2 * resolution
        ]
        if not levels:
            raise ValueError(
                f"attention_resolutions has {resolution}, but the levels of a "
                f"{image_size[0]}x{image_size[1]} image have sizes {sizes}; choose among these"
            )
        picked += levels
    return tuple(sorted(set(picked)))


def build_autoencoder(config: AutoencoderConfig, *, key: PRNGKey) -> ConvAutoencoder:
    """An autoencoder with fresh weights."""
    return run_once(_build_autoencoder, config, key=key)


def _build_autoencoder(config: AutoencoderConfig, *, key: PRNGKey) -> ConvAutoencoder:
    return ConvAutoencoder(
        image_shape=config.input_shape,
        latent_channels=config.latent_channels,
        encoder_dims=config.encoder_hidden_dims,
        decoder_dims=config.decoder_hidden_dims,
        num_res_blocks=config.num_res_blocks,
        variational=config.encoder_type == "vae",
        activation=ACTIVATIONS[config.activation],
        head_dim=config.head_dim,
        norm_groups=config.norm_groups,
        key=key,
    )
