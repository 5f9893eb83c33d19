"""Few steps: students of a guided teacher that draw in 4, 2 or 1 steps.

Progressive distillation halves the steps again and again, consistency distillation learns to go to the end
at once, and consistency training does so without a teacher. All are judged by a classifier of real images,
beside the teacher at 50 steps and at as few steps as its students take. Leaves in `--out`: the models
student.safetensors (progressive, 4 steps) and consistency.safetensors, distillation.png and results.json.
"""

import dataclasses
import json
from pathlib import Path
from typing import Annotated

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import tyro
from rich.console import Console
from rich.table import Table
from small_model import ModelOptions, Setting, prepare

from diffusion_eqx.config import DiffusionTrainingConfig
from diffusion_eqx.data import image_grid, save_picture
from diffusion_eqx.denoiser import Denoiser
from diffusion_eqx.distillation import distill_progressively, train_consistency
from diffusion_eqx.evaluation import frechet_distance, judge, train_classifier
from diffusion_eqx.models import save_model
from diffusion_eqx.samplers import (
    AbstractSampler,
    ClippedSampler,
    ConsistencySampler,
    DDIMSampler,
    sample,
)
from diffusion_eqx.training import Cadence

GUIDANCE = 2.0
FEW = (1, 2, 4)


@dataclasses.dataclass(frozen=True)
class Options:
    """Teach students to draw in few steps."""

    model: Annotated[ModelOptions, tyro.conf.arg(name="")]
    out: Path = Path("distillation")
    """Folder of models, picture and figures."""
    stage_steps: int = 150
    """Training steps of each stage."""
    judged: int = 500
    """Images by which each student is judged."""


def main() -> None:
    """Run the example."""
    options = tyro.cli(Options, description=__doc__)
    options.out.mkdir(parents=True, exist_ok=True)
    setting = prepare(options.model)
    students = teach(setting, options)
    teacher = setting.model.guided(GUIDANCE)
    drawings: list[tuple[str, AbstractSampler, int]] = [
        ("teacher", DDIMSampler(teacher), steps) for steps in (50, *FEW)
    ]
    for steps in FEW:
        drawings.append(("progressive", DDIMSampler(students[f"progressive {steps}"]), steps))
    for name in ("consistency distillation", "consistency training"):
        drawings += [(name, ConsistencySampler(students[name]), steps) for steps in FEW]
    epochs = 3 if len(setting.train) > 10_000 else 30
    classifier = train_classifier(setting.train, epochs=epochs, key=jax.random.key(1))
    reference, _ = judge(classifier, setting.test.images)
    classes = setting.train.num_classes or 1
    labels = np.arange(options.judged) % classes
    results: dict[str, dict[str, float]] = {}
    rows = []
    for name, sampler, steps in drawings:
        images = np.asarray(
            sample(
                ClippedSampler(sampler),
                setting.model.config.input_shape,
                count=options.judged,
                # As an array, so that the numbers of steps share one compiled program.
                steps=jnp.asarray(steps),
                key=jax.random.key(2),
                cond=jnp.asarray(labels),
            )
        )
        features, found = judge(classifier, images)
        results[f"{name}, steps: {steps}"] = {
            "accuracy": float(np.mean(found == labels)),
            "distance": frechet_distance(features, reference),
        }
        rows.append(images[:classes])
    zoom = 2 if setting.model.config.input_shape[0] > 8 else 6
    picture = options.out / "distillation.png"
    save_picture(picture, image_grid(np.concatenate(rows), classes), zoom=zoom)
    (options.out / "results.json").write_text(json.dumps(results, indent=1))
    table = Table(
        "", "seen as the class asked for", "Fréchet distance", title="students of few steps"
    )
    for name, row in results.items():
        table.add_row(name, f"{row['accuracy']:.1%}", f"{row['distance']:.2f}")
    Console().print(table)
    Console().print(f"Look at {picture}: a row for each line of the table.")


def teach(setting: Setting, options: Options) -> dict[str, Denoiser]:
    """Students by name; the progressive ones by their number of steps too."""
    training = DiffusionTrainingConfig(
        steps=options.stage_steps,
        warmup_steps=options.stage_steps // 10,
        learning_rate=1e-3,
        ema_decay=0.99,
    )
    cadence = Cadence(log_every=options.stage_steps)
    teacher, start = setting.model.guided(GUIDANCE), setting.model.denoiser
    students: dict[str, Denoiser] = {}
    stages = distill_progressively(
        teacher, start, setting.train, training, stages=(4, 2, 1), cadence=cadence
    )
    for steps, student in stages:
        students[f"progressive {steps}"] = student
    for name, guide in (("consistency distillation", teacher), ("consistency training", None)):
        students[name] = train_consistency(
            start, setting.train, training, stages=(8,), teacher=guide, cadence=cadence
        )
    # A student is a model like any other: it is saved, exported and sampled by the same commands.
    for file, name in (("student", "progressive 4"), ("consistency", "consistency distillation")):
        model = eqx.tree_at(lambda m: m.denoiser, setting.model, students[name])
        save_model(options.out / f"{file}.safetensors", model, ema=True)
    return students


if __name__ == "__main__":
    main()
