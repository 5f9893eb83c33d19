"""The guide's `DDIMModel`."""

import equinox as eqx
import jax

from diffusion_eqx._typing import Images, Labels, PRNGKey
from diffusion_eqx.config import DDIMConfig
from diffusion_eqx.denoiser import Denoiser
from diffusion_eqx.editing import ddim_invert
from diffusion_eqx.guidance.classifier_free import Scale
from diffusion_eqx.models.base import AbstractScheduledModel, assemble
from diffusion_eqx.samplers import ClippedSampler, DDIMSampler, sample_from


class DDIMModel(AbstractScheduledModel):
    """A diffusion model that generates by DDIM in few steps, and can invert images (Song et al. 2021)."""

    denoiser: Denoiser
    config: DDIMConfig = eqx.field(static=True)

    def __init__(self, config: DDIMConfig, *, key: PRNGKey):
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
        """DDIM with the configured `num_inference_steps` and `eta`. Shapes and range as `sample`."""
        return self.sample(
            n_samples,
            "ddim",
            self.config.num_inference_steps,
            key=key,
            labels=labels,
            guidance_scale=guidance_scale,
            eta=self.config.eta,
        )

    def ddim_sample(
        self,
        n_samples: int | None = None,
        steps: int | None = None,
        *,
        noise: Images | None = None,
        key: PRNGKey | None = None,
        labels: Labels | None = None,
    ) -> Images:
        """Deterministic DDIM, from fresh noise (give `n_samples` and `key`) or from given `noise`.

        **Raises:** `ValueError` unless exactly one of these is given.
        """
        steps = self._steps(steps or self.config.num_inference_steps)
        if noise is None:
            if n_samples is None or key is None:
                raise ValueError("give either noise, or n_samples and key")
            return self.sample(n_samples, "ddim", steps, key=key, labels=labels)
        if n_samples is not None and n_samples != len(noise):
            raise ValueError(f"n_samples={n_samples} contradicts noise of shape {noise.shape}")
        # Deterministic: the key decides nothing once the noise is given.
        key = jax.random.key(0) if key is None else key
        labels = self._labels(labels, len(noise))
        sampler = ClippedSampler(self._deterministic())
        return sample_from(sampler, noise, steps=steps, key=key, cond=labels)

    def ddim_reverse(
        self,
        images: Images,
        ddim_steps: int | None = None,
        *,
        iterations: int = 3,
        labels: Labels | None = None,
    ) -> Images:
        """The noise from which `ddim_sample(noise=…)` with as many steps returns `images`.

        `iterations` of the fixed point at each step; 1 is the classic, less exact inversion.
        """
        steps = self._steps(ddim_steps or self.config.num_inference_steps)
        labels = self._labels(labels, len(images))
        return ddim_invert(
            self._deterministic(), images, steps=steps, iterations=iterations, cond=labels
        )

    def _deterministic(self) -> DDIMSampler:
        # Clipping x0 loses information that inversion needs, so both directions go without it.
        return DDIMSampler(eqx.nn.inference_mode(self.denoiser))
