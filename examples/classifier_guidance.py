"""Classes from a model that knows none: classifier guidance of an unconditional model of digits.

An unconditional U-Net learns to draw digits, and a classifier learns to recognise noisy digits. The
classifier's gradient leads the U-Net to the class that is wanted (Dhariwal & Nichol 2021). A second
classifier, of clean digits only, takes no part in the drawing. It judges what was drawn at several scales
of guidance.

Leaves in the folder `--out`: guided.png (a row of every class for each scale) and results.json. Without
`--full` it takes less than two minutes of processor time.
"""

import dataclasses
import json
from pathlib import Path

import jax
import numpy as np
import tyro
from rich.console import Console
from rich.table import Table
from small_model import save_rows, small_network, split

import diffusion_eqx as dx

CLASSES = 10
SCALES = (0.0, 0.5, 1.0, 2.0, 4.0)
NOISE = dx.config.NoiseScheduleConfig(schedule_type="cosine")


@dataclasses.dataclass(frozen=True)
class Options:
    """Guide an unconditional model of digits by a classifier of noisy digits."""

    out: Path = Path("classifier-guidance")
    """Folder for the picture and the figures."""
    full: bool = False
    """Train longer and judge more images."""


def main() -> None:
    """Run the example."""
    dx.use_all_cores()
    options = tyro.cli(Options, description=__doc__)
    options.out.mkdir(parents=True, exist_ok=True)
    train_set, test_set = split(dx.data.digits(), 1500)
    assert test_set.labels is not None
    held_out, truth = test_set.images, test_set.labels

    model = train_model(train_set, steps=4000 if options.full else 1000)
    noisy = dx.training.train_noisy_classifier(
        train_set,
        dx.config.NoisyClassifierConfig(input_shape=(8, 8, 1), noise_schedule=NOISE),
        epochs=80 if options.full else 15,
        key=jax.random.key(1),
    )
    judge = dx.evaluation.train_classifier(
        train_set, epochs=25 if options.full else 15, batch_size=100, key=jax.random.key(3)
    )
    results = {
        "judge's accuracy on unseen digits": dx.evaluation.accuracy(judge, held_out, truth),
        "noisy classifier's accuracy on unseen digits": {
            str(t): dx.evaluation.noisy_accuracy(noisy, held_out, truth, t, key=jax.random.key(4))
            for t in (0.2, 0.5, 0.8)
        },
    }
    labels = np.tile(np.arange(CLASSES), 100 if options.full else 10)
    drawn = {scale: draw(model, noisy, scale, labels) for scale in SCALES}
    results["accuracy by scale"] = {
        str(scale): dx.evaluation.accuracy(judge, images, labels) for scale, images in drawn.items()
    }
    rows = np.concatenate([images[:CLASSES] for images in drawn.values()])
    save_rows(options.out / "guided.png", rows, CLASSES)
    (options.out / "results.json").write_text(json.dumps(results, indent=1))
    show(results, options.out / "guided.png")


def train_model(data: dx.data.ImageDataset, steps: int) -> dx.models.DDIMModel:
    """An unconditional model of digits, trained without their labels."""
    unlabelled = dx.data.ImageDataset(data.images)
    config = dx.config.DDIMConfig(
        backbone=small_network(unlabelled),
        noise_schedule=NOISE,
        input_shape=(8, 8, 1),
        prediction_type="v_prediction",
    )
    training = dx.config.TrainingConfig(
        steps=steps, warmup_steps=100, learning_rate=2e-3, ema_decay=0.995
    )
    model = dx.models.DDIMModel(config, key=jax.random.key(0))
    return dx.train(model, unlabelled, training)


def draw(
    model: dx.models.DDIMModel,
    classifier: dx.models.NoisyClassifier,
    scale: float,
    labels: np.ndarray,
) -> np.ndarray:
    """An image of each label, from the same noise for each scale."""
    images = model.sample(
        len(labels),
        dx.samplers.DDIMSampler(eta=1.0),
        steps=25,
        labels=labels,
        guidance=dx.guidance.ClassifierGuidance(classifier, scale),
        key=jax.random.key(2),
    )
    return np.asarray(images)


def show(results: dict, picture: Path) -> None:
    """Print the table, and where the picture is."""
    console = Console()
    table = Table("guidance scale", "images of the class asked for", title="classifier guidance")
    for scale, share in results["accuracy by scale"].items():
        table.add_row(scale, f"{share:.1%}")
    console.print(table)
    known = results["judge's accuracy on unseen digits"]
    console.print(
        f"the judge knows {known:.1%} of real, unseen digits; chance is {1 / CLASSES:.0%}"
    )
    console.print(f"Look at {picture}: a row for each scale, a column for each digit.")


if __name__ == "__main__":
    main()
