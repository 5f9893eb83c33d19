"""One U-Net in both libraries: ours, and diffusers' `UNet2DModel`."""

import dataclasses
from typing import Any

import jax
import torch
from diffusers.models.unets.unet_2d import UNet2DModel

import diffusion_eqx as dx
from tests.peer_unet import with_weights_of

# Pixels of a side of the images, which are grey.
SIZE = 28


@dataclasses.dataclass(frozen=True)
class Sizes:
    """What both networks have: channels of each level, of which the last attends, and the rest."""

    widths: tuple[int, ...]
    layers: int
    head_dim: int
    groups: int


def their_unet(sizes: Sizes) -> Any:
    """diffusers' U-Net with the weights of its start, in the layout that suits PyTorch best."""
    attention = (False,) * (len(sizes.widths) - 1) + (True,)
    peer: Any = UNet2DModel(
        sample_size=SIZE,
        in_channels=1,
        out_channels=1,
        block_out_channels=sizes.widths,
        down_block_types=tuple("AttnDownBlock2D" if a else "DownBlock2D" for a in attention),
        up_block_types=tuple("AttnUpBlock2D" if a else "UpBlock2D" for a in attention[::-1]),
        layers_per_block=sizes.layers,
        time_embedding_dim=sizes.widths[0],
        attention_head_dim=sizes.head_dim,
        norm_num_groups=sizes.groups,
        attn_norm_num_groups=sizes.groups,
        resnet_time_scale_shift="scale_shift",
    )
    return peer.to(memory_format=torch.channels_last)


def our_model(sizes: Sizes, *, seed: int = 0) -> dx.models.DDIMModel:
    """Our model of such a U-Net, with fresh weights; noise and clipping are diffusers' defaults."""
    config = dx.config.DDIMConfig(
        backbone=dx.config.UNetBackboneConfig(
            hidden_dims=sizes.widths,
            time_embedding_dim=sizes.widths[0],
            attention_resolutions=(-(-SIZE // 2 ** (len(sizes.widths) - 1)),),
            num_res_blocks=sizes.layers,
            head_dim=sizes.head_dim,
            norm_groups=sizes.groups,
        ),
        input_shape=(SIZE, SIZE, 1),
    )
    return dx.models.DDIMModel(config, key=jax.random.key(seed))


def with_their_weights(model: dx.models.DDIMModel, peer: Any) -> dx.models.DDIMModel:
    """Our model with the weights of diffusers' network."""
    backbone = model.denoiser.backbone
    assert isinstance(backbone, dx.nn.UNet)
    return dx.models.with_network(model, with_weights_of(backbone, peer.eval()))
