"""A latent model in one line: its autoencoder first, then the model of its latents."""

import dataclasses
from collections.abc import Iterable
from pathlib import Path

import jax

from diffusion_eqx._typing import PRNGKey
from diffusion_eqx.config import LDMConfig, TrainingConfig
from diffusion_eqx.data import ImagesInMemory
from diffusion_eqx.models import LDMModel, build_autoencoder
from diffusion_eqx.training.autoencoder import measure_scale_factor, train_autoencoder
from diffusion_eqx.training.callback import Callback
from diffusion_eqx.training.folder import LATENTS
from diffusion_eqx.training.model import train
from diffusion_eqx.training.run import Run

# The folder of the first stage, in that of the run.
AUTOENCODER = "autoencoder"


def train_latent(
    config: LDMConfig,
    data: ImagesInMemory,
    training: TrainingConfig,
    *,
    autoencoder_training: TrainingConfig | None = None,
    out: str | Path | None = None,
    callbacks: Iterable[Callback] = (),
    overwrite: bool = False,
    key: PRNGKey,
) -> LDMModel:
    """Train the autoencoder of a latent model, measure the scale of its latents, and train the model.

    - `config`: if its `scale_factor` is None, it is measured on the data.
    - `data`: images of `config.input_shape`, with labels if the model has classes.
    - `training`, `autoencoder_training`: how the model and the autoencoder are trained; None: both alike.
      What concerns noise levels, labels and pictures of samples does not matter to the autoencoder.
    - `out`: the folder of the run, or None. The autoencoder's run is in its folder `autoencoder`, the
      moments of the latents in `latents`. The same call again continues the stage that was stopped.
    - `callbacks`: of the second stage.
    - `key`: decides the initial weights of both.

    **Raises:** as `train_autoencoder` and `train`.
    """
    key_autoencoder, key_model = jax.random.split(key)
    first = _first_stage(autoencoder_training or training)
    folder = None if out is None else Path(out) / AUTOENCODER
    settings = {"stage": AUTOENCODER, "kl_weight": config.kl_weight}
    autoencoder = train_autoencoder(
        build_autoencoder(config.autoencoder, key=key_autoencoder),
        data,
        first,
        kl_weight=config.kl_weight,
        run=Run(folder, settings=settings, overwrite=overwrite),
    )
    scale = config.scale_factor
    if scale is None:
        cache = None if out is None else Path(out) / LATENTS
        scale = measure_scale_factor(autoencoder, data, cache=cache)
    model = LDMModel(config, autoencoder=autoencoder, scale_factor=scale, key=key_model)
    return train(model, data, training, out=out, callbacks=callbacks, overwrite=overwrite)


def _first_stage(training: TrainingConfig) -> TrainingConfig:
    """The same but for what an autoencoder has not: noise levels, labels, pictures of samples."""
    return dataclasses.replace(
        training,
        preview_every=0,
        held_out=0.0,
        best_by=None,
        learned_uncertainty=False,
        loss_aware_times=False,
    )
