"""`diffusion-eqx train` of students: `--kind progressive`, `consistency` and `consistency-training`."""

import dataclasses
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from diffusion_eqx.cli.class_names import check_class_names
from diffusion_eqx.cli.computing import prepare
from diffusion_eqx.cli.goal import Goal, Source, check_out, load_source
from diffusion_eqx.cli.launching import Launch, join
from diffusion_eqx.cli.watching import Watch, callbacks_of
from diffusion_eqx.config import TrainingConfig

if TYPE_CHECKING:
    from diffusion_eqx.models import AbstractDiffusionModel


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Learning:
    """From whom a student learns what, and how."""

    init_from: Annotated[Path | None, tyro.conf.arg(metavar="MODEL.safetensors")] = None
    """The model that teaches, and with whose weights the student begins. It must be given."""
    stages: tuple[int, ...] | None = None
    """Numbers of steps, one stage of training for each. progressive: each half of the one before, by
    default 8 4 2 1; consistency: of ever finer grids, by default 8 16 32 64."""
    guidance_scale: float | None = None
    """Scale of the teacher's guidance, which is learnt too; by default none."""
    training: TrainingConfig = dataclasses.field(default_factory=TrainingConfig)
    """How each stage is trained, and how often it reports."""
    overwrite: tyro.conf.FlagCreatePairsOff[bool] = False
    """Delete the stages that are in the folder, and start anew."""
    cpu_devices: int = 0
    """On CPU, split each batch over so many devices; 0: one for each core."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainStudent(
    Launch, Watch, _Learning, Source, Goal
):  # Shown from the last base to the first.
    """Train a student of few steps in a folder.

    The folder receives model.safetensors, and a folder for each stage, which has its checkpoints, log.jsonl
    and preview.png. Stop with Ctrl-C; the same command again continues.
    """


def run(options: TrainStudent) -> None:
    """Train as the options say."""
    check_out(options.out)
    if options.init_from is None:
        raise ValueError(
            f"--kind {options.kind} needs the model that teaches: give --init-from MODEL.safetensors"
        )
    prepare(options.cpu_devices)
    join(options, options.out)
    import jax

    from diffusion_eqx.distillation import distill
    from diffusion_eqx.models import load_model
    from diffusion_eqx.training import DataMismatch, ResumeError

    teacher: AbstractDiffusionModel = load_model(options.init_from)
    height, width, channels = teacher.config.input_shape
    data = load_source(options, (height, width), channels, options.training.batch_size)
    check_class_names(data.class_names, options.init_from, options.data)
    try:
        student = distill(
            teacher,
            data,
            options.training,
            method=options.kind.replace("-", "_"),
            stages=options.stages,
            guidance=options.guidance_scale,
            out=options.out,
            callbacks=callbacks_of(options, data, options.data),
            overwrite=options.overwrite,
        )
    except DataMismatch as error:
        raise ValueError(f"{options.init_from} does not fit {options.data}: {error}") from error
    except ResumeError as error:
        raise ValueError(str(error).replace("overwrite=True", "--overwrite")) from error
    if jax.process_index() == 0:
        how = student.config.recommended
        print(
            f"wrote {options.out / 'model.safetensors'} (drawn by {how.name} in {how.steps} steps)",
            file=sys.stderr,
        )
