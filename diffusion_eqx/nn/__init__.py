"""Channels-last layers and the backbones made of them."""

from diffusion_eqx._face import face as _face
from diffusion_eqx.nn.activation import ACTIVATIONS as ACTIVATIONS
from diffusion_eqx.nn.attention import SpatialSelfAttention as SpatialSelfAttention
from diffusion_eqx.nn.attention import attend as attend
from diffusion_eqx.nn.attention import self_attend as self_attend
from diffusion_eqx.nn.autoencoder import AbstractAutoencoder as AbstractAutoencoder
from diffusion_eqx.nn.autoencoder import ConvAutoencoder as ConvAutoencoder
from diffusion_eqx.nn.autoencoder import LatentDistribution as LatentDistribution
from diffusion_eqx.nn.conv import Conv as Conv
from diffusion_eqx.nn.conv import upsample_to as upsample_to
from diffusion_eqx.nn.dit import DiT as DiT
from diffusion_eqx.nn.embedding import ClassEmbedding as ClassEmbedding
from diffusion_eqx.nn.embedding import ConditionEmbedding as ConditionEmbedding
from diffusion_eqx.nn.embedding import TimeEmbedding as TimeEmbedding
from diffusion_eqx.nn.embedding import check_labels as check_labels
from diffusion_eqx.nn.embedding import sinusoidal_features as sinusoidal_features
from diffusion_eqx.nn.linear import Linear as Linear
from diffusion_eqx.nn.mlp import MLP as MLP
from diffusion_eqx.nn.norm import GroupNorm as GroupNorm
from diffusion_eqx.nn.patches import patchify as patchify
from diffusion_eqx.nn.patches import position_features as position_features
from diffusion_eqx.nn.patches import unpatchify as unpatchify
from diffusion_eqx.nn.rematerialize import Rematerialized as Rematerialized
from diffusion_eqx.nn.rematerialize import rematerialized as rematerialized
from diffusion_eqx.nn.resblock import ResBlock as ResBlock
from diffusion_eqx.nn.transformer import TransformerBlock as TransformerBlock
from diffusion_eqx.nn.transformer import TransformerStack as TransformerStack
from diffusion_eqx.nn.transformer import modulated_norm as modulated_norm
from diffusion_eqx.nn.unet import UNet as UNet

__dir__ = _face(globals())
