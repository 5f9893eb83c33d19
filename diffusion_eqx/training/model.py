"""Training of whole models, in one line."""

import json
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeVar

from diffusion_eqx.config import TrainingConfig, to_json
from diffusion_eqx.data import Dataset
from diffusion_eqx.losses import training_loss
from diffusion_eqx.models import AbstractDiffusionModel, LDMModel, save_model, with_network
from diffusion_eqx.training.best import Best
from diffusion_eqx.training.callback import Callback
from diffusion_eqx.training.checks import check_data, check_unchanged
from diffusion_eqx.training.devices import writes
from diffusion_eqx.training.examples import what_is_denoised
from diffusion_eqx.training.fine_tuning import begin_from
from diffusion_eqx.training.folder import BEST, MODEL
from diffusion_eqx.training.held_out import HeldOut, split_held_out
from diffusion_eqx.training.identity import describe_network, describe_value
from diffusion_eqx.training.loop import fit
from diffusion_eqx.training.recipe import make_recipe
from diffusion_eqx.training.record import training_record
from diffusion_eqx.training.run import Run
from diffusion_eqx.training.state import averaged

ModelT = TypeVar("ModelT", bound=AbstractDiffusionModel)


def train(
    model: ModelT,
    data: Dataset,
    config: TrainingConfig,
    *,
    out: str | Path | None = None,
    callbacks: Iterable[Callback] = (),
    init_from: str | Path | AbstractDiffusionModel | None = None,
    overwrite: bool = False,
) -> ModelT:
    """Train a model on images, and give it back with its averaged weights.

    - `model`: any model of this library. It stays as it is. A latent one is trained on the latents of the
      images, which are encoded once; its autoencoder is not trained.
    - `data`: images of the model's shape, with labels if the model has classes.
    - `config`: how long, with which batches and reports.
    - `out`: the folder of the run, or None. It receives checkpoints, `log.jsonl` with one line of JSON for
      each report, `preview.png` and `best.safetensors` if `config` asks for them, of a latent model the
      moments of the latents in `latents`, and last `model.safetensors`. The same call again continues a run
      that was stopped.
    - `callbacks`: see `Callback`.
    - `init_from`: a model, or the path of a model's file, whose network weights the training begins with;
      its classes may be others (see `begin_from`).
    - `overwrite`: delete the run that is in `out`, and start anew.

    **Raises:** `DataMismatch` if the data do not fit the model; `ResumeError` if `out` holds a run of other
    settings; `ValueError` as `save_model` if `out` is given, before any step is made; and as `fit`.

    **Warns:** `UserWarning` as `fit` and `check_data`, and if latents are not of about unit size.
    """
    if init_from is not None:
        model = begin_from(model, init_from, data.class_names)
    if config.best_by is not None and out is None:
        raise ValueError(f"best_by={config.best_by!r} needs a folder for the best model; give out=")
    check_data(model, data)
    if isinstance(model, LDMModel):
        check_unchanged(config)
    run = Run(
        out,
        settings=_settings(model),
        assemble=lambda network: with_network(model, network),
        overwrite=overwrite,
    )
    if out is not None:
        _check_savable(model, data, config)
    run.open(model.denoiser.backbone, data, config)
    if config.held_out > 0.0:
        data, others = split_held_out(data, config.held_out)
        callbacks = (*callbacks, HeldOut(others, every=config.held_out_every))
    if run.folder is not None and config.best_by is not None:
        best = Best(run.folder / BEST, lambda rows: training_record(data, config, rows))
        # After all that add to a report.
        callbacks = (*callbacks, best)
    loss = training_loss(model.denoiser, model.config, config)
    state, rows = fit(
        model.denoiser.backbone,
        what_is_denoised(model, data, run.folder),
        make_recipe(config, loss),
        config,
        run=run,
        callbacks=callbacks,
    )
    trained = with_network(model, averaged(state))
    if run.folder is not None and writes():
        save_model(run.folder / MODEL, trained, record=training_record(data, config, rows))
    return trained


def _settings(model: AbstractDiffusionModel) -> dict[str, Any]:
    """What a model is beside its network; a part put in by hand is not that of the configuration."""
    return {
        "model": json.loads(to_json(model.config)),
        "schedule": describe_value(model.denoiser.schedule),
        "parameterization": describe_value(model.denoiser.parameterization),
        "decoding": describe_network(model.decoding),
    }


def _check_savable(model: AbstractDiffusionModel, data: Dataset, config: TrainingConfig) -> None:
    # A model that cannot be saved is refused before it is trained, not after.
    with tempfile.TemporaryDirectory() as folder:
        save_model(Path(folder) / MODEL, model, record=training_record(data, config, []))
