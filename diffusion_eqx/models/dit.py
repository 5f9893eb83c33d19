"""The guide's `DiTModel`."""

from typing import TypeVar

import equinox as eqx

from diffusion_eqx._typing import Images, Labels, PRNGKey
from diffusion_eqx.config import DiTConfig
from diffusion_eqx.denoiser import Denoiser
from diffusion_eqx.guidance.classifier_free import Scale
from diffusion_eqx.models.base import AbstractScheduledModel, assemble

ValueT = TypeVar("ValueT")


class DiTModel(AbstractScheduledModel):
    """A diffusion transformer that generates by ancestral sampling (Peebles & Xie 2023).

    With `learn_sigma` the steps have the variance that the network has learnt.
    """

    denoiser: Denoiser
    config: DiTConfig = eqx.field(static=True)

    def __init__(self, config: DiTConfig, *, key: PRNGKey):
        """A model with fresh weights."""
        self.config = config
        self.denoiser = assemble(config, key=key)

    def generate(
        self,
        n_samples: int,
        y: Labels | None = None,
        cfg_scale: Scale | None = None,
        num_steps: int | None = None,
        *,
        key: PRNGKey,
        labels: Labels | None = None,
        guidance_scale: Scale | None = None,
    ) -> Images:
        """Ancestral sampling: (n_samples, height, width, channels) in [−1, 1].

        `y` and `cfg_scale` are the guide's names for `labels` and `guidance_scale`. With labels, the scale
        defaults to the configured one, and 1 is no guidance; `num_steps` defaults to all timesteps.

        **Raises:** `ValueError` as `sample`, or if a value is given under both of its names.
        """
        labels = _one_of("y", y, "labels", labels)
        scale = _one_of("cfg_scale", cfg_scale, "guidance_scale", guidance_scale)
        if scale is None and labels is not None:
            scale = self.config.cfg_scale
        if isinstance(scale, int | float) and scale == 1.0:
            scale = None  # The conditional prediction itself, for half the work.
        return self.sample(
            n_samples, "ddpm", num_steps, key=key, labels=labels, guidance_scale=scale
        )


def _one_of(
    name: str, value: ValueT | None, other_name: str, other: ValueT | None
) -> ValueT | None:
    if value is not None and other is not None:
        raise ValueError(f"{name} and {other_name} are the same thing; give one of them")
    return other if value is None else value
