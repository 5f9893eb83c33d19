"""`diffusion-eqx train`: from images to a model file."""

import dataclasses
import json
import sys
from pathlib import Path
from typing import Annotated, Literal

import tyro

from diffusion_eqx.config import (
    DDIMConfig,
    DiffusionTrainingConfig,
    NoiseScheduleConfig,
    UNetBackboneConfig,
    to_json,
)

DataName = Literal["fashion-mnist", "digits", "emoji"]


def _default_model() -> DDIMConfig:
    return DDIMConfig(
        name="fashion-unet",
        backbone=UNetBackboneConfig(
            hidden_dims=(16, 32, 64), attention_resolutions=(8,), num_classes=10
        ),
        noise_schedule=NoiseScheduleConfig(schedule_type="cosine"),
        prediction_type="v_prediction",
        # Guidance at the highest noise costs variety (Kynkäänniemi et al. 2024).
        guidance_interval=(0.0, 0.95),
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Train:
    """Train a diffusion model and write it as one file.

    The weights saved are their moving average. Checkpoints go to OUT.checkpoints, the log (one JSON line
    for each report) to OUT.log.jsonl, previews to OUT.preview.png. Stop with Ctrl-C; continue with
    --resume.
    """

    out: Annotated[Path, tyro.conf.arg(aliases=["-o"], metavar="FILE")]
    """The model file to write, e.g. model.safetensors."""
    data: DataName = "fashion-mnist"
    """What to train on."""
    data_dir: Path | None = None
    """Where the data set's files are, if not where its package puts them."""
    # Without subcommands, so that the fields of the default's backbone are options as all others.
    model: tyro.conf.AvoidSubcommands[DDIMConfig] = dataclasses.field(
        default_factory=_default_model
    )
    """The model; input_shape must be that of the data."""
    training: DiffusionTrainingConfig = dataclasses.field(default_factory=DiffusionTrainingConfig)
    """How it is trained."""
    resume: bool = False
    """Continue from the newest checkpoint of the same run."""
    checkpoint_every: int = 200
    """Steps between checkpoints; 0 writes none but the last."""
    preview_every: int = 0
    """Steps between pictures of what the model draws; 0 draws none."""
    log_every: int = 20
    """Steps between reports."""
    cpu_devices: int = 0
    """On CPU, split each batch over so many devices; 0: one for each core."""


def run(options: Train) -> None:
    """Train as the options say."""
    import jax

    from diffusion_eqx.cli.devices import use_all_cores

    use_all_cores(options.cpu_devices, options.training.batch_size)

    import equinox as eqx

    from diffusion_eqx.cli.data import load_dataset
    from diffusion_eqx.models import DDIMModel, save_model
    from diffusion_eqx.training import Cadence, Checkpoints, Preview, averaged, fit, make_recipe

    dataset = load_dataset(options.data, "train", options.data_dir)
    _check_fit(options, dataset)
    model = DDIMModel(options.model, key=jax.random.key(options.training.seed))
    recipe = make_recipe(options.training, model.training_loss(options.training))
    run_record = {
        "data": options.data,
        "model": json.loads(to_json(options.model)),
        "training": json.loads(to_json(options.training)),
    }
    out = options.out
    with Checkpoints(out.with_name(out.name + ".checkpoints"), run=run_record) as checkpoints:
        state, history = fit(
            model.denoiser.backbone,
            dataset,
            recipe,
            options.training,
            cadence=Cadence(
                log_every=options.log_every,
                preview_every=options.preview_every,
                checkpoint_every=options.checkpoint_every,
            ),
            checkpoints=checkpoints,
            resume=options.resume,
            log=out.with_name(out.name + ".log.jsonl"),
            preview=Preview(model, out.with_name(out.name + ".preview.png")),
        )
    trained = eqx.tree_at(lambda m: m.denoiser.backbone, model, averaged(state))
    record = {
        "data": options.data,
        "class_names": list(dataset.class_names),
        "images": len(dataset),
        "final_loss": history[-1]["loss"],
        **dataclasses.asdict(options.training),
    }
    save_model(out, trained, ema=True, training=record)
    print(f"wrote {out} (moving average of {options.training.steps} steps)", file=sys.stderr)


def _check_fit(options: Train, dataset) -> None:
    shape = tuple(dataset.images.shape[1:])
    if options.model.input_shape != shape:
        raise ValueError(
            f"model.input_shape is {options.model.input_shape}, but images of {options.data} have "
            f"shape {shape}: set --model.input-shape {' '.join(map(str, shape))}"
        )
    classes = options.model.backbone.num_classes
    if classes is not None and classes != dataset.num_classes:
        raise ValueError(
            f"model.backbone.num_classes is {classes}, but {options.data} has "
            f"{dataset.num_classes or 'no'} classes: set --model.backbone.num-classes "
            f"{dataset.num_classes}"
        )
