"""Every sampler on real data: conditional accuracy and Fréchet distance at 10, 20 and 50 steps.

    python -m benchmarks.digits_samplers [--out FOLDER]

Trains one class-conditional U-Net on scikit-learn's digits (8x8), draws 500 images with each sampler at
guidance 2 from the same noise, and judges them by a classifier of real digits. Prints a table and writes
digits_samplers.json. The first rows are real digits' own figures.
"""

import dataclasses
import json
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import tyro
from rich.console import Console
from rich.table import Table

from diffusion_eqx.config import (
    DDIMConfig,
    DiffusionTrainingConfig,
    NoiseScheduleConfig,
    UNetBackboneConfig,
)
from diffusion_eqx.data import ImageDataset, digits
from diffusion_eqx.evaluation import accuracy, frechet_distance, judge, train_classifier
from diffusion_eqx.models import DDIMModel
from diffusion_eqx.samplers import SAMPLERS, sample
from diffusion_eqx.training import averaged, fit, make_recipe

STEPS = (10, 20, 50)
COUNT = 500
EXTRA = ("diffrax:Heun", "diffrax:Tsit5", "sde:Euler", "sde:Heun")


@dataclasses.dataclass(frozen=True)
class Options:
    """Train on digits, sample with everything, judge."""

    out: Path = Path("benchmarks/results")
    """Folder of the table."""
    training_steps: int = 1500
    """Training steps."""


def main() -> None:
    """Run the benchmark."""
    options = tyro.cli(Options, description=__doc__)
    options.out.mkdir(parents=True, exist_ok=True)
    data = digits()
    assert data.labels is not None
    train_set, test_set = halves(data)
    model = train(data, options.training_steps)
    classifier = train_classifier(train_set, epochs=60, batch_size=64, key=jax.random.key(1))
    reference, _ = judge(classifier, data.images)
    rows: dict[str, dict[str, float]] = {}
    features, _ = judge(classifier, test_set.images[:COUNT])
    assert test_set.labels is not None
    rows["real, unseen by the judge"] = {
        "accuracy": accuracy(classifier, test_set.images, test_set.labels),
        "distance": frechet_distance(features, reference),
    }
    labels = np.arange(COUNT) % 10
    for name in (*SAMPLERS, *EXTRA):
        if name == "consistency":
            continue  # for consistency models only
        sampler = model.sampler(name, guidance_scale=2.0)
        for steps in STEPS:
            # As an array, so that the numbers of steps share one compiled program.
            found = sample(
                sampler,
                (8, 8, 1),
                count=COUNT,
                steps=jnp.asarray(steps),
                key=jax.random.key(7),
                cond=jnp.asarray(labels),
            )
            images = np.asarray(found)
            features, classes = judge(classifier, images)
            rows[f"{name} {steps}"] = {
                "accuracy": float(np.mean(classes == labels)),
                "distance": frechet_distance(features, reference),
            }
    (options.out / "digits_samplers.json").write_text(json.dumps(rows, indent=1))
    table = Table("sampler", *(f"{steps} steps" for steps in STEPS))
    real = rows["real, unseen by the judge"]
    table.add_row("real digits", f"{real['accuracy']:.1%} / {real['distance']:.2f}", "", "")
    for name in dict.fromkeys(key.rsplit(" ", 1)[0] for key in list(rows)[1:]):
        cells = (rows[f"{name} {steps}"] for steps in STEPS)
        table.add_row(name, *(f"{c['accuracy']:.1%} / {c['distance']:.2f}" for c in cells))
    Console().print(table)


def halves(data: ImageDataset) -> tuple[ImageDataset, ImageDataset]:
    """Two thirds for the judge to learn from, one third that it never sees."""
    assert data.labels is not None
    order = np.random.default_rng(0).permutation(len(data))
    split = 2 * len(data) // 3
    first, second = order[:split], order[split:]
    return (
        ImageDataset(data.images[first], data.labels[first]),
        ImageDataset(data.images[second], data.labels[second]),
    )


def train(data: ImageDataset, steps: int) -> DDIMModel:
    """A small class-conditional U-Net."""
    config = DDIMConfig(
        name="digits",
        backbone=UNetBackboneConfig(
            hidden_dims=(32, 64), attention_resolutions=(4,), num_classes=10
        ),
        noise_schedule=NoiseScheduleConfig(schedule_type="cosine"),
        input_shape=(8, 8, 1),
        prediction_type="v_prediction",
    )
    training = DiffusionTrainingConfig(steps=steps, batch_size=64, warmup_steps=100)
    model = DDIMModel(config, key=jax.random.key(0))
    recipe = make_recipe(training, model.training_loss(training))
    state, _ = fit(model.denoiser.backbone, data, recipe, training)
    return eqx.tree_at(lambda m: m.denoiser.backbone, model, averaged(state))


if __name__ == "__main__":
    main()
