"""Few steps: students of a guided teacher that draw in 4, 2 or 1 steps.

Progressive distillation halves the steps again and again. Consistency distillation learns to go to the end
at once, and consistency training does so without a teacher. A classifier of real images judges all of them,
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
from small_model import ModelOptions, Setting, prepare, save_rows, train_judge

import diffusion_eqx as dx

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
    dx.use_all_cores()
    options = tyro.cli(Options, description=__doc__)
    options.out.mkdir(parents=True, exist_ok=True)
    setting = prepare(options.model)
    students = teach(setting, options)
    ddim, consistency = dx.samplers.DDIMSampler(), dx.samplers.ConsistencySampler()
    teacher = setting.model.plan(ddim, guidance=GUIDANCE)
    drawings = [("teacher", teacher, steps) for steps in (50, *FEW)]
    for steps in FEW:
        drawings.append(("progressive", students[f"progressive {steps}"].plan(ddim), steps))
    for name in ("consistency distillation", "consistency training"):
        drawings += [(name, students[name].plan(consistency), steps) for steps in FEW]
    judge = train_judge(setting.train)
    reference, _ = dx.evaluation.judge(judge, setting.test.images)
    labels = np.arange(options.judged) % setting.classes
    results: dict[str, dict[str, float]] = {}
    rows = []
    for name, plan, steps in drawings:
        images = draw(plan, steps, labels)
        features, found = dx.evaluation.judge(judge, images)
        results[f"{name}, steps: {steps}"] = {
            "accuracy": float(np.mean(found == labels)),
            "distance": dx.evaluation.frechet_distance(features, reference),
        }
        rows.append(images[: setting.classes])
    picture = options.out / "distillation.png"
    save_rows(picture, np.concatenate(rows), setting.classes)
    (options.out / "results.json").write_text(json.dumps(results, indent=1))
    table = Table(
        "", "seen as the class asked for", "Fréchet distance", title="students of few steps"
    )
    for name, row in results.items():
        table.add_row(name, f"{row['accuracy']:.1%}", f"{row['distance']:.2f}")
    Console().print(table)
    Console().print(f"Look at {picture}: a row for each line of the table.")


def draw(plan: dx.models.Plan, steps: int, labels: np.ndarray) -> np.ndarray:
    """An image of each label, from the same noise whatever the plan."""
    drawn = dx.sample(
        plan.denoiser,
        plan.sampler,
        plan.shape,
        count=len(labels),
        # As an array, so that all numbers of steps share one compiled program.
        steps=jnp.asarray(steps),
        key=jax.random.key(2),
        cond=jnp.asarray(labels),
        decode=plan.decode,
    )
    return np.asarray(drawn)


def teach(setting: Setting, options: Options) -> dict[str, dx.models.DDIMModel]:
    """Students by name; the progressive ones by their number of steps too."""
    training = dx.config.TrainingConfig(
        steps=options.stage_steps,
        learning_rate=1e-3,
        ema_decay=0.99,
        log_every=options.stage_steps,
    )
    teacher, start = setting.model.plan(guidance=GUIDANCE).denoiser, setting.model.denoiser
    students = {}
    stages = dx.distillation.distill_progressively(
        teacher, start, setting.train, training, stages=(4, 2, 1)
    )
    for steps, student in stages:
        students[f"progressive {steps}"] = student
    for name, guide in (("consistency distillation", teacher), ("consistency training", None)):
        students[name] = dx.distillation.train_consistency(
            start, setting.train, training, stages=(8,), teacher=guide
        )
    # A student is a model like any other: the same commands save, export and sample it.
    models = {
        name: eqx.tree_at(lambda m: m.denoiser, setting.model, student)
        for name, student in students.items()
    }
    for file, name in (("student", "progressive 4"), ("consistency", "consistency distillation")):
        dx.save_model(options.out / f"{file}.safetensors", models[name], record={"ema": True})
    return models


if __name__ == "__main__":
    main()
