"""`DDPMModel`."""

import equinox as eqx

from diffusion_eqx._typing import PRNGKey
from diffusion_eqx.config import DDPMConfig
from diffusion_eqx.denoiser import Denoiser
from diffusion_eqx.models.aliases import AbstractPixelModel
from diffusion_eqx.models.build import build_denoiser


class DDPMModel(AbstractPixelModel):
    """A diffusion model that is sampled by ancestral sampling over all timesteps (Ho et al. 2020)."""

    denoiser: Denoiser
    config: DDPMConfig = eqx.field(static=True)

    def __init__(self, config: DDPMConfig, *, key: PRNGKey):
        """A model with fresh weights."""
        self.config = config
        self.denoiser = build_denoiser(config, key=key)
