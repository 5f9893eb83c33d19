"""`DDIMModel`."""

import equinox as eqx

from diffusion_eqx._typing import Batch, Images, Labels, PRNGKey
from diffusion_eqx.config import DDIMConfig
from diffusion_eqx.denoiser import Denoiser
from diffusion_eqx.editing import ddim_invert
from diffusion_eqx.models.aliases import AbstractPixelModel
from diffusion_eqx.models.build import build_denoiser


class DDIMModel(AbstractPixelModel):
    """A diffusion model that is sampled by DDIM in few steps, and can invert images (Song et al. 2021)."""

    denoiser: Denoiser
    config: DDIMConfig = eqx.field(static=True)

    def __init__(self, config: DDIMConfig, *, key: PRNGKey):
        """A model with fresh weights."""
        self.config = config
        self.denoiser = build_denoiser(config, key=key)

    def ddim_sample(
        self,
        n_samples: int | None = None,
        steps: int | None = None,
        *,
        noise: Batch | None = None,
        key: PRNGKey | None = None,
        labels: Labels | None = None,
    ) -> Images:
        """`sample` or `sample_from` by deterministic DDIM: from fresh noise, or from a given one.

        x0 is limited at each step as the configuration says, on both ways.

        **Raises:** `ValueError` unless exactly one of these is given.
        """
        steps = self.config.num_inference_steps if steps is None else steps
        if noise is None:
            if n_samples is None or key is None:
                raise ValueError("give either noise, or n_samples and key")
            return self.sample(n_samples, "ddim", steps=steps, key=key, labels=labels)
        if n_samples is not None and n_samples != len(noise):
            raise ValueError(f"n_samples={n_samples} contradicts noise of shape {noise.shape}")
        return self.sample_from(noise, "ddim", steps=steps, labels=labels)

    def ddim_reverse(
        self,
        images: Images,
        ddim_steps: int | None = None,
        *,
        iterations: int = 3,
        labels: Labels | None = None,
    ) -> Batch:
        """`editing.ddim_invert`.

        The noise from which `ddim_sample(noise=…)` in as many steps returns `images`.
        """
        steps = self.config.num_inference_steps if ddim_steps is None else ddim_steps
        return ddim_invert(
            self, images, sampler="ddim", steps=steps, iterations=iterations, labels=labels
        )
