"""`diffusion-eqx train`: from images to a model."""

import dataclasses
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from diffusion_eqx.cli.class_names import tell_classes
from diffusion_eqx.cli.computing import prepare
from diffusion_eqx.cli.goal import (
    ALL_KINDS,
    KINDS,
    STUDENTS,
    Goal,
    Source,
    check_out,
    load_source,
)
from diffusion_eqx.cli.launching import Launch, join
from diffusion_eqx.cli.train_student import TrainStudent
from diffusion_eqx.cli.watching import Watch, callbacks_of
from diffusion_eqx.config import (
    DDIMConfig,
    DDPMConfig,
    DiTConfig,
    LDMConfig,
    ScoreDiffusionConfig,
    TrainingConfig,
    UNetBackboneConfig,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from diffusion_eqx._typing import PRNGKey
    from diffusion_eqx.data import Dataset, ImagesInMemory
    from diffusion_eqx.models import AbstractDiffusionModel
    from diffusion_eqx.training import Callback

ModelConfig = DDIMConfig | DDPMConfig | ScoreDiffusionConfig | DiTConfig | LDMConfig

# Guidance at the highest noise costs variety (Kynkäänniemi et al. 2024).
_INTERVAL = (0.0, 0.95)


@dataclasses.dataclass(frozen=True)
class _Shown:
    """What the help shows: Fashion-MNIST, without reading it."""

    shape: tuple[int, ...] = (28, 28, 1)
    num_classes: int | None = 10


def default_model(kind: str, data: "Dataset | _Shown" = _Shown()) -> Any:
    """The configuration of a kind of model that fits a data set."""
    return KINDS[kind].for_data(data, guidance_interval=_INTERVAL)


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Training:
    """What begins the training, and how it goes."""

    init_from: Annotated[Path | None, tyro.conf.arg(metavar="MODEL.safetensors")] = None
    """Begin with the weights of this model. The new one has its configuration, but the size and the classes
    of the data, and what options of --model say."""
    # Without subcommands, so that the fields of the default's backbone are options as all others.
    model: tyro.conf.AvoidSubcommands[DDIMConfig] = dataclasses.field(
        default_factory=lambda: default_model("ddim")
    )
    """The model. What is not given is made to fit the data: their size, channels and classes. Shown is what
    fits fashion-mnist. Pictures are read at the size that is given here."""
    training: TrainingConfig = dataclasses.field(default_factory=TrainingConfig)
    """How it is trained, and how often it reports."""
    autoencoder_steps: int | None = None
    """Training steps of the autoencoder of --kind latent; by default those of the model."""
    dry_run: tyro.conf.FlagCreatePairsOff[bool] = False
    """Compile and time a few steps, print what the run takes, and train nothing."""
    overwrite: tyro.conf.FlagCreatePairsOff[bool] = False
    """Delete the run that is in the folder, and start anew."""
    cpu_devices: int = 0
    """On CPU, split each batch over so many devices; 0: one for each core."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Train(Launch, Watch, _Training, Source, Goal):  # Shown from the last base to the first.
    """Train a diffusion model in a folder.

    The folder receives model.safetensors (the moving average of the weights), checkpoints, log.jsonl with
    one line for each report, and preview.png. Stop with Ctrl-C; the same command again continues.

    A file of options may come first: `diffusion-eqx train options.yaml --training.batch-size 128`. It has
    the names of the options here, nested as their dots say; what is given on the command line overrides it.
    """


def train_of(kind: str, model: Any = None) -> type[Train] | type[TrainStudent]:
    """`Train` for a kind of model, or `TrainStudent`.

    - `model`: the configuration that the options `--model` change. None: there are no such options.

    **Raises:** `ValueError` for an unknown kind.
    """
    if kind not in ALL_KINDS:
        raise ValueError(f"unknown --kind {kind!r}; choose one of {', '.join(ALL_KINDS)}")
    chosen: tuple[str, Any, Any] = (
        "kind",
        Goal.__annotations__["kind"],
        dataclasses.field(default=kind),
    )
    if kind in STUDENTS:
        return _with_fields(TrainStudent, [chosen])
    shown = default_model(kind) if model is None else model
    config: Any = tyro.conf.AvoidSubcommands[KINDS[kind]]
    options = tyro.conf.Suppress[config] if model is None else config
    field = ("model", options, dataclasses.field(default_factory=lambda: shown))
    return _with_fields(Train, [chosen, field])


def _with_fields(options: type[Any], fields: list[Any]) -> type[Any]:
    """A class of options with other fields in place of some of its own."""
    return dataclasses.make_dataclass(
        options.__name__,
        fields,
        bases=(options,),
        frozen=True,
        kw_only=True,
        namespace={"__doc__": options.__doc__, "__module__": options.__module__},
    )


def run(
    options: Train,
    shape: tuple[tuple[int, int] | None, int | None],
    fitted: "Callable[[ModelConfig], Train]",
) -> None:
    """Train as the options say.

    - `options`: all but those of the model.
    - `shape`: the (height, width) and the channels that options of the model ask for.
    - `fitted`: all options, those of the model lying over the configuration it is given.
    """
    check_out(options.out)
    if options.autoencoder_steps is not None and options.kind != "latent":
        raise ValueError("--autoencoder-steps is for --kind latent; leave it out")
    size, channels = shape
    if size is not None and options.size is not None:
        raise ValueError(
            "--size and an option of --model both say the size of the pictures: leave one out"
        )
    prepare(options.cpu_devices)
    join(options, options.out)

    from diffusion_eqx.training import DataMismatch, ResumeError

    begun = _begun(options)
    height, width, known = (*_Shown.shape[:2], None) if begun is None else begun.input_shape
    data = load_source(
        options, size or (height, width), channels or known, options.training.batch_size
    )
    _check_shape(options, shape, data)
    options = fitted(_fitting(options, data, begun))
    try:
        _train(options, options.model, data)
    except DataMismatch as error:
        raise ValueError(
            f"{error}. On the command line: leave out the option of --model, which is then made to fit"
        ) from error
    except ResumeError as error:
        raise ValueError(str(error).replace("overwrite=True", "--overwrite")) from error
    import jax

    if not options.dry_run and jax.process_index() == 0:
        print(
            f"wrote {options.out / 'model.safetensors'} (moving average of {options.training.steps} steps)",
            file=sys.stderr,
        )


def _begun(options: Train) -> ModelConfig | None:
    """The configuration of the model to begin with, if it is of the kind that is trained."""
    if options.init_from is None:
        return None
    from diffusion_eqx.models import read_config

    config = read_config(options.init_from)
    return config if isinstance(config, KINDS[options.kind]) else None


def _fitting(options: Train, data: "Dataset", begun: ModelConfig | None) -> ModelConfig:
    """The configuration for the data: a new one, or that of the model to begin with.

    Of the latter the size and the classes are those of the data, and the sampler is the usual one: its own
    may be that of a student.
    """
    if begun is None:
        return default_model(options.kind, data)
    height, width, channels = data.shape
    if channels != begun.input_shape[2]:
        raise ValueError(
            f"images of {options.data} have shape {tuple(data.shape)}, those of {options.init_from} "
            f"{begun.input_shape}: their channels must be equal"
        )
    if isinstance(begun, DiTConfig):
        return dataclasses.replace(
            begun, img_size=(height, width), num_classes=data.num_classes, sampler=None
        )
    network = dataclasses.replace(begun.backbone, num_classes=data.num_classes)
    if isinstance(network, UNetBackboneConfig):
        # The same levels attend: their sizes grow with the images.
        before, now = max(begun.input_shape[:2]), max(height, width)
        sizes = tuple(-(-size * now // before) for size in network.attention_resolutions)
        network = dataclasses.replace(network, attention_resolutions=sizes)
    return dataclasses.replace(begun, input_shape=data.shape, backbone=network, sampler=None)


def _check_shape(
    options: Train, shape: tuple[tuple[int, int] | None, int | None], data: "Dataset"
) -> None:
    """Refuse a shape that options of the model ask for, and the data do not have."""
    height, width, channels = data.shape
    if shape[0] not in (None, (height, width)) or shape[1] not in (None, channels):
        raise ValueError(
            f"the images of {options.data} are {height} x {width} x {channels}, and options of --model ask "
            "for others: leave them out, and it is made to fit"
        )


def _train(options: Train, config: ModelConfig, data: "ImagesInMemory") -> None:
    import jax

    from diffusion_eqx.models import build_model
    from diffusion_eqx.random_keys import INIT, role
    from diffusion_eqx.training import begin_from, check_data, train

    # Another key than that of the training steps, which have the same seed.
    key = role(jax.random.key(options.training.seed), INIT)
    callbacks = [] if options.dry_run else callbacks_of(options, data, options.data)
    if isinstance(config, LDMConfig):
        _train_latent(options, config, data, callbacks, key)
        return
    model = build_model(config, key=key)
    if options.init_from is not None:
        model = begin_from(model, options.init_from, data.class_names)
        said = tell_classes(data.class_names, options.init_from)
        if said is not None:
            print(said, file=sys.stderr)
    if options.dry_run:
        check_data(model, data)
        print(_costs(model, data, options.training))
        return
    train(
        model,
        data,
        options.training,
        out=options.out,
        callbacks=callbacks,
        overwrite=options.overwrite,
    )


def _train_latent(
    options: Train,
    config: LDMConfig,
    data: "ImagesInMemory",
    callbacks: "list[Callback]",
    key: "PRNGKey",
) -> None:
    from diffusion_eqx.training import dry_run_latent, train_latent

    steps, first = options.autoencoder_steps, None
    if options.init_from is not None and steps is not None:
        raise ValueError(
            "--init-from brings its autoencoder, which is not trained: leave out --autoencoder-steps"
        )
    if steps is not None:
        first = dataclasses.replace(options.training, steps=steps)
    if options.dry_run:
        costs = dry_run_latent(config, data, options.training, autoencoder_training=first, key=key)
        for stage, found in zip(("autoencoder", "model"), costs, strict=True):
            print(f"{stage}:\n{found}")
        return
    train_latent(
        config,
        data,
        options.training,
        autoencoder_training=first,
        out=options.out,
        callbacks=callbacks,
        init_from=options.init_from,
        overwrite=options.overwrite,
        key=key,
    )


def _costs(model: "AbstractDiffusionModel", data: "Dataset", training: TrainingConfig) -> Any:
    from diffusion_eqx.losses import training_loss
    from diffusion_eqx.training import dry_run, make_recipe

    recipe = make_recipe(training, training_loss(model.denoiser, model.config, training))
    return dry_run(model.denoiser.backbone, data, recipe, training)
