"""From configurations to the parts of a model."""

from diffusion_eqx._typing import PRNGKey
from diffusion_eqx.config import NoiseScheduleConfig, UNetBackboneConfig
from diffusion_eqx.config.model import PredictionType
from diffusion_eqx.nn import ACTIVATIONS, UNet
from diffusion_eqx.parameterization import AbstractParameterization, Epsilon, Sample, VPrediction
from diffusion_eqx.schedules import (
    DiscreteSchedule,
    cosine_betas,
    linear_betas,
    scaled_linear_betas,
)


def build_schedule(config: NoiseScheduleConfig) -> DiscreteSchedule:
    """The schedule that a configuration describes."""
    if config.schedule_type == "cosine":
        return DiscreteSchedule(cosine_betas(config.num_timesteps))
    betas = {"linear": linear_betas, "scaled_linear": scaled_linear_betas}[config.schedule_type]
    return DiscreteSchedule(betas(config.num_timesteps, config.beta_start, config.beta_end))


def build_parameterization(prediction_type: PredictionType) -> AbstractParameterization:
    """The parameterization of that name."""
    return {"epsilon": Epsilon, "sample": Sample, "v_prediction": VPrediction}[prediction_type]()


def build_unet(config: UNetBackboneConfig, image_size: tuple[int, int], *, key: PRNGKey) -> UNet:
    """A U-Net with fresh weights. `image_size`, (height, width), decides which levels attend.

    **Raises:** `ValueError` if an attention resolution is that of no level.
    """
    return UNet(
        in_channels=config.in_channels,
        out_channels=config.out_channels,
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
