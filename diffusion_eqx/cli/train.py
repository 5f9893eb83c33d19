"""`diffusion-eqx train`: from images to a model."""

import dataclasses
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from diffusion_eqx.config import (
    DDIMConfig,
    NoiseScheduleConfig,
    TrainingConfig,
    UNetBackboneConfig,
)

if TYPE_CHECKING:
    from diffusion_eqx.data import Dataset


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
    """Train a diffusion model in a folder.

    The folder receives model.safetensors (the moving average of the weights), checkpoints, log.jsonl with
    one line for each report, and preview.png. Stop with Ctrl-C; the same command again continues.
    """

    out: Annotated[Path, tyro.conf.arg(aliases=["-o"], metavar="FOLDER")]
    """The folder of the run, e.g. run."""
    data: Annotated[str, tyro.conf.arg(metavar="NAME|FOLDER")] = "fashion-mnist"
    """What to train on: fashion-mnist, digits, emoji, or a folder of pictures. Folders in it are classes;
    pictures are read at the size and in the channels of --model.input-shape."""
    data_dir: Path | None = None
    """Where the data set's files are, if not where its package puts them."""
    # Without subcommands, so that the fields of the default's backbone are options as all others.
    model: tyro.conf.AvoidSubcommands[DDIMConfig] = dataclasses.field(
        default_factory=_default_model
    )
    """The model; input_shape must be that of the data."""
    training: TrainingConfig = dataclasses.field(default_factory=TrainingConfig)
    """How it is trained, and how often it reports."""
    overwrite: tyro.conf.FlagCreatePairsOff[bool] = False
    """Delete the run that is in the folder, and start anew."""
    cpu_devices: int = 0
    """On CPU, split each batch over so many devices; 0: one for each core."""


def run(options: Train) -> None:
    """Train as the options say."""
    if options.out.suffix == ".safetensors":
        raise ValueError(
            f"--out is the folder of the run, into which model.safetensors is written; got {options.out}: "
            f"write e.g. --out {options.out.with_suffix('')}"
        )
    import jax

    from diffusion_eqx.samplers import use_all_cores

    use_all_cores(options.cpu_devices or None, required=options.cpu_devices > 0)

    from diffusion_eqx.cli.data import load_dataset
    from diffusion_eqx.models import DDIMModel
    from diffusion_eqx.random_keys import INIT, role
    from diffusion_eqx.training import DataMismatch, ResumeError, train

    data = load_dataset(options.data, "train", options.model.input_shape, options.data_dir)
    # Another key than that of the training steps, which have the same seed.
    key = role(jax.random.key(options.training.seed), INIT)
    try:
        train(
            DDIMModel(options.model, key=key),
            data,
            options.training,
            out=options.out,
            overwrite=options.overwrite,
        )
    except DataMismatch as error:
        raise ValueError(f"{error}. On the command line: {_options_for(data)}") from error
    except ResumeError as error:
        raise ValueError(str(error).replace("overwrite=True", "--overwrite")) from error
    print(
        f"wrote {options.out / 'model.safetensors'} (moving average of {options.training.steps} steps)",
        file=sys.stderr,
    )


def _options_for(data: "Dataset") -> str:
    """The options that make the model fit the data."""
    shape = data.shape
    return (
        f"--model.input-shape {' '.join(map(str, shape))} --model.backbone.in-channels {shape[-1]} "
        f"--model.backbone.out-channels {shape[-1]} --model.backbone.num-classes {data.num_classes}"
    )
