"""The kinds of model, each a class of configuration and a class of model."""

from diffusion_eqx._typing import PRNGKey
from diffusion_eqx.config import (
    AbstractModelConfig,
    DDIMConfig,
    DDPMConfig,
    DiTConfig,
    LDMConfig,
    ScoreDiffusionConfig,
)
from diffusion_eqx.models.base import AbstractDiffusionModel
from diffusion_eqx.models.ddim import DDIMModel
from diffusion_eqx.models.ddpm import DDPMModel
from diffusion_eqx.models.dit import DiTModel
from diffusion_eqx.models.latent import LDMModel
from diffusion_eqx.models.score import ScoreDiffusionModel

# By the names that configurations call them by, and files.
KINDS: dict[str, tuple[type[AbstractModelConfig], type[AbstractDiffusionModel]]] = {
    "ddpm": (DDPMConfig, DDPMModel),
    "ddim": (DDIMConfig, DDIMModel),
    "dit": (DiTConfig, DiTModel),
    "score": (ScoreDiffusionConfig, ScoreDiffusionModel),
    "ldm": (LDMConfig, LDMModel),
}


def build_model(
    config: DDPMConfig | DDIMConfig | DiTConfig | ScoreDiffusionConfig, *, key: PRNGKey
) -> DDPMModel | DDIMModel | DiTModel | ScoreDiffusionModel:
    """The model that a configuration describes, with fresh weights. Latent models also need an autoencoder.

    **Raises:** `TypeError` for the configuration of a latent model, or what is none of a model.
    """
    match config:
        # A latent configuration is none of these.
        case DDIMConfig():
            return DDIMModel(config, key=key)
        case DDPMConfig():
            return DDPMModel(config, key=key)
        case DiTConfig():
            return DiTModel(config, key=key)
        case ScoreDiffusionConfig():
            return ScoreDiffusionModel(config, key=key)
    raise TypeError(
        f"build_model makes pixel models; got a {type(config).__name__}. A latent model is made by "
        "LDMModel(config, autoencoder=…, scale_factor=…, key=key), or train_latent"
    )
