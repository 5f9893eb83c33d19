"""A latent model in one line: its autoencoder first, then the model of its latents."""

import dataclasses
from collections.abc import Iterable
from pathlib import Path

import jax
import numpy as np

from diffusion_eqx._typing import PRNGKey
from diffusion_eqx.config import LDMConfig, TrainingConfig
from diffusion_eqx.data import ArrayDataset, ImagesInMemory
from diffusion_eqx.losses import training_loss
from diffusion_eqx.models import LDMModel, build_autoencoder, load_model
from diffusion_eqx.training.autoencoder import (
    AutoencoderLoss,
    measure_scale_factor,
    train_autoencoder,
)
from diffusion_eqx.training.callback import Callback
from diffusion_eqx.training.checks import check_data, check_unchanged
from diffusion_eqx.training.dry_run import Costs, dry_run
from diffusion_eqx.training.folder import LATENTS
from diffusion_eqx.training.model import train
from diffusion_eqx.training.recipe import make_recipe
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
    init_from: str | Path | LDMModel | None = None,
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
    - `init_from`: a latent model, or the path of its file. Its autoencoder and its scale are taken as they
      are, and the second stage begins with its weights; its classes may be others (see `begin_from`).
    - `key`: decides the initial weights of both.

    **Raises:** `ValueError` if `init_from` is no latent model, or if images are to be changed while
    training; as `train_autoencoder` and `train`.
    """
    check_unchanged(training)
    key_autoencoder, key_model = jax.random.split(key)
    source = None if init_from is None else _latent_model(init_from)
    if source is not None:
        autoencoder, scale = source.autoencoder, source.scale_factor
    else:
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
    # The scale that the model has by then, whoever said it.
    config = dataclasses.replace(config, scale_factor=None)
    model = LDMModel(config, autoencoder=autoencoder, scale_factor=scale, key=key_model)
    return train(
        model,
        data,
        training,
        out=out,
        callbacks=callbacks,
        init_from=init_from,
        overwrite=overwrite,
    )


def dry_run_latent(
    config: LDMConfig,
    data: ImagesInMemory,
    training: TrainingConfig,
    *,
    autoencoder_training: TrainingConfig | None = None,
    key: PRNGKey,
) -> tuple[Costs, Costs]:
    """What both stages of `train_latent` would take, its arguments being the same. Nothing is trained.

    **Raises:** as `dry_run`, and as `check_data` if the data do not fit.
    """
    check_unchanged(training)
    key_autoencoder, key_model = jax.random.split(key)
    autoencoder = build_autoencoder(config.autoencoder, key=key_autoencoder)
    config = dataclasses.replace(config, scale_factor=None)
    model = LDMModel(config, autoencoder=autoencoder, scale_factor=1.0, key=key_model)
    check_data(model, data)
    first = _first_stage(autoencoder_training or training)
    recipe = make_recipe(first, AutoencoderLoss(config.kl_weight))
    # How long a step takes does not depend on what the latents are.
    latents = np.zeros((len(data), *config.sample_shape), np.float32)
    return (
        dry_run(autoencoder, data, recipe, first),
        dry_run(
            model.denoiser.backbone,
            ArrayDataset(latents, data.labels, data.class_names),
            make_recipe(training, training_loss(model.denoiser, config, training)),
            training,
        ),
    )


def _latent_model(source: str | Path | LDMModel) -> LDMModel:
    found = source if isinstance(source, LDMModel) else load_model(source)
    if isinstance(found, LDMModel):
        return found
    raise ValueError(
        f"{source} holds a {type(found).__name__}, and a latent model begins with a latent model only"
    )


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
