"""`diffusion-eqx train`: from images to a model."""

import dataclasses
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from diffusion_eqx.config import (
    DDIMConfig,
    TrainingConfig,
    UNetBackboneConfig,
)

if TYPE_CHECKING:
    from diffusion_eqx.data import Dataset


# Guidance at the highest noise costs variety (Kynkäänniemi et al. 2024).
_INTERVAL = (0.0, 0.95)


@dataclasses.dataclass(frozen=True)
class _Shown:
    """What the options show: Fashion-MNIST, without reading it."""

    shape: tuple[int, ...] = (28, 28, 1)
    num_classes: int | None = 10


def _model_for(data: "Dataset | _Shown") -> DDIMConfig:
    return DDIMConfig.for_data(data, guidance_interval=_INTERVAL)


def _default_model() -> DDIMConfig:
    return _model_for(_Shown())


@dataclasses.dataclass(frozen=True, kw_only=True)
class Train:
    """Train a diffusion model in a folder.

    The folder receives model.safetensors (the moving average of the weights), checkpoints, log.jsonl with
    one line for each report, and preview.png. Stop with Ctrl-C; the same command again continues.
    """

    out: Annotated[Path, tyro.conf.arg(aliases=["-o"], metavar="FOLDER")]
    """The folder of the run, e.g. run."""
    data: Annotated[str, tyro.conf.arg(metavar="NAME|FOLDER")] = "fashion-mnist"
    """fashion-mnist, digits, emoji, or a folder of pictures, whose folders are classes."""
    size: tuple[int, int] | None = None
    """Height and width of a folder's pictures, if --model does not say (default: 28 28)."""
    data_dir: Path | None = None
    """Where the data set's files are, if not where its package puts them."""
    # Without subcommands, so that the fields of the default's backbone are options as all others.
    model: tyro.conf.AvoidSubcommands[DDIMConfig] = dataclasses.field(
        default_factory=_default_model
    )
    """The model. Without options of it, it is made to fit the data: their size, channels and classes. With
    any, it is taken as given, and input_shape must be that of the data."""
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

    chosen = options.model != _default_model()
    if chosen and options.size is not None:
        raise ValueError(
            "--size is for a model that is made to fit the pictures; with options of --model their size is "
            "--model.input-shape"
        )
    height, width, channels = options.model.input_shape
    size = options.size or (height, width)
    data = load_dataset(options.data, size, channels if chosen else None, options.data_dir)
    model = options.model if chosen else _model_for(data)
    # Another key than that of the training steps, which have the same seed.
    key = role(jax.random.key(options.training.seed), INIT)
    try:
        train(
            DDIMModel(model, key=key),
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
    shape, network = data.shape, _model_for(data).backbone
    assert isinstance(network, UNetBackboneConfig)
    return (
        f"--model.input-shape {' '.join(map(str, shape))} --model.backbone.in-channels {shape[-1]} "
        f"--model.backbone.out-channels {shape[-1]} --model.backbone.num-classes {data.num_classes} "
        f"--model.backbone.attention-resolutions {network.attention_resolutions[0]}; or no option of "
        "--model at all, and it is made to fit"
    )
