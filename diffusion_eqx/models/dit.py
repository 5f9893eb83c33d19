"""`DiTModel`."""

import equinox as eqx

from diffusion_eqx._typing import PRNGKey
from diffusion_eqx.config import DiTConfig
from diffusion_eqx.denoiser import Denoiser
from diffusion_eqx.models.aliases import AbstractPixelModel
from diffusion_eqx.models.build import build_denoiser


class DiTModel(AbstractPixelModel):
    """A diffusion transformer, sampled by ancestral sampling (Peebles & Xie 2023).

    With `learn_sigma` the steps have the variance that the network has learnt.
    """

    denoiser: Denoiser
    config: DiTConfig = eqx.field(static=True)

    def __init__(self, config: DiTConfig, *, key: PRNGKey):
        """A model with fresh weights."""
        self.config = config
        self.denoiser = build_denoiser(config, key=key)
