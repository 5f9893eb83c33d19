"""The guide's `DDPMModel`."""

import equinox as eqx

from diffusion_eqx._typing import Images, Labels, PRNGKey
from diffusion_eqx.config import DDPMConfig
from diffusion_eqx.denoiser import Denoiser
from diffusion_eqx.guidance.classifier_free import Scale
from diffusion_eqx.models.base import AbstractScheduledModel, assemble


class DDPMModel(AbstractScheduledModel):
    """A diffusion model that generates by ancestral sampling over all timesteps (Ho et al. 2020)."""

    denoiser: Denoiser
    config: DDPMConfig = eqx.field(static=True)

    def __init__(self, config: DDPMConfig, *, key: PRNGKey):
        """A model with fresh weights."""
        self.config = config
        self.denoiser = assemble(config, key=key)

    def generate(
        self,
        n_samples: int,
        *,
        key: PRNGKey,
        labels: Labels | None = None,
        guidance_scale: Scale | None = None,
    ) -> Images:
        """Ancestral sampling over all T timesteps: (n_samples, height, width, channels) in [−1, 1]."""
        return self.sample(n_samples, "ddpm", key=key, labels=labels, guidance_scale=guidance_scale)
