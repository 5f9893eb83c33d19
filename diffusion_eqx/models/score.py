"""`ScoreDiffusionModel`."""

import equinox as eqx

from diffusion_eqx._typing import PRNGKey
from diffusion_eqx.config import ScoreDiffusionConfig
from diffusion_eqx.denoiser import Denoiser
from diffusion_eqx.models.aliases import AbstractPixelModel
from diffusion_eqx.models.build import build_denoiser


class ScoreDiffusionModel(AbstractPixelModel):
    """A model of the score in continuous time, sampled by solving an SDE or ODE (Song et al. 2021)."""

    denoiser: Denoiser
    config: ScoreDiffusionConfig = eqx.field(static=True)

    def __init__(self, config: ScoreDiffusionConfig, *, key: PRNGKey):
        """A model with fresh weights."""
        self.config = config
        self.denoiser = build_denoiser(config, key=key)
