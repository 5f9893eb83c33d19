"""The guide's `ScoreDiffusionModel`."""

from typing import Any

import equinox as eqx
from jaxtyping import Array, Float

from diffusion_eqx._typing import Images, Labels, PRNGKey, Time
from diffusion_eqx.config import ScoreDiffusionConfig
from diffusion_eqx.denoiser import Denoiser
from diffusion_eqx.guidance.classifier_free import Scale
from diffusion_eqx.models.base import AbstractPixelModel, assemble
from diffusion_eqx.samplers import trajectory
from diffusion_eqx.schedules import like


class ScoreDiffusionModel(AbstractPixelModel):
    """A model of the score in continuous time, sampled by solving an SDE or ODE (Song et al. 2021)."""

    denoiser: Denoiser
    config: ScoreDiffusionConfig = eqx.field(static=True)

    def __init__(self, config: ScoreDiffusionConfig, *, key: PRNGKey):
        """A model with fresh weights."""
        self.config = config
        self.denoiser = assemble(config, key=key)

    def score(self, x: Images, t: Time, labels: Labels | None = None) -> Images:
        """grad log p_t(x) = −eps/sigma at times in (0, 1], one for all images or one for each."""
        denoiser = eqx.nn.inference_mode(self.denoiser)
        return -denoiser(x, t, labels).eps / like(denoiser.schedule.sigma(t), x)

    def generate(
        self,
        n_samples: int,
        *,
        key: PRNGKey,
        labels: Labels | None = None,
        guidance_scale: Scale | None = None,
    ) -> Images:
        """The reverse SDE in as many steps as there are noise levels; shapes and range as `sample`."""
        return self.sample(n_samples, key=key, labels=labels, guidance_scale=guidance_scale)

    def sample(
        self,
        num_samples: int,
        num_steps: int | None = None,
        return_trajectory: bool = False,
        *,
        key: PRNGKey,
        scheduler: str = "sde:Euler",
        every: int = 1,
        labels: Labels | None = None,
        first: int = 0,
        **fields: Any,
    ) -> Images | Float[Array, "snapshots batch height width channels"]:
        """Draw images by the reverse SDE, or any other sampler. Returns (n, H, W, C) in [−1, 1].

        `num_steps` defaults to `noise_steps`. `scheduler`: `sde:Euler` (Euler-Maruyama) or another solver
        of diffrax for the SDE, `diffrax:Heun`, `adaptive:Tsit5` and so on for the probability-flow ODE,
        `predictor_corrector`, or any other of `samplers.SAMPLERS`; `fields` as `sampler`. With
        `return_trajectory`, a snapshot at the start and after every `every` steps: (snapshots, n, H, W, C).

        **Raises:** `ValueError` if steps, shape or labels do not fit the model.
        """
        sampler = self.sampler(scheduler, **fields)
        if not return_trajectory:
            return self.draw(num_samples, sampler, num_steps, key=key, labels=labels, first=first)
        return trajectory(
            sampler,
            self.config.input_shape,
            count=num_samples,
            steps=self._steps(num_steps),
            every=every,
            key=key,
            cond=self._labels(labels, num_samples),
        )
