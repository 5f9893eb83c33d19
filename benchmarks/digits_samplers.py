"""Every sampler on real data: conditional accuracy and Fréchet distance at 10, 20 and 50 steps.

    python -m benchmarks.digits_samplers [--out FOLDER]

Trains one class-conditional U-Net on scikit-learn's digits (8x8) and draws 500 images with each sampler at
guidance 2, all from the same noise. A classifier of real digits judges them. Prints a table and writes
digits_samplers.json. The first row has the figures of real digits.
"""

import dataclasses
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from rich.console import Console
from rich.table import Table

import diffusion_eqx as dx

STEPS = (10, 20, 50)
EXTRA = ("diffrax:Heun", "diffrax:Tsit5", "sde:Euler", "sde:Heun")


@dataclasses.dataclass(frozen=True)
class Options:
    """Train on digits, sample with everything, judge."""

    out: Path = Path("benchmarks/results")
    """Folder of the table."""
    training_steps: int = 1500
    """Training steps."""
    count: int = 500
    """Images that each draws, and real ones that are judged beside them."""
    only: tuple[str, ...] = ()
    """Names of the samplers to run, if not all."""


def main() -> None:
    """Run the benchmark."""
    dx.use_all_cores()
    options = tyro.cli(Options, description=__doc__)
    options.out.mkdir(parents=True, exist_ok=True)
    data = dx.data.digits()
    train_set, test_set = halves(data)
    model = train(data, options.training_steps)
    judge = dx.evaluation.train_classifier(
        train_set, epochs=60, batch_size=64, key=jax.random.key(1)
    )
    reference, _ = dx.evaluation.judge(judge, data.images)
    rows: dict[str, dict[str, float]] = {}
    features, _ = dx.evaluation.judge(judge, test_set.images[: options.count])
    assert test_set.labels is not None
    rows["real, unseen by the judge"] = {
        "accuracy": dx.evaluation.accuracy(judge, test_set.images, test_set.labels),
        "distance": dx.evaluation.frechet_distance(features, reference),
    }
    labels = np.arange(options.count) % 10
    # The consistency sampler is for consistency models only.
    every = [name for name in dx.samplers.SAMPLERS if name != "consistency"]
    for name in options.only or (*every, *EXTRA):
        plan = model.plan(name, steps=max(STEPS), guidance=2.0)
        for steps in STEPS:
            drawn = dx.sample(
                plan.denoiser,
                plan.sampler,
                plan.shape,
                count=options.count,
                # As an array, so that all numbers of steps share one compiled program.
                steps=jnp.asarray(steps),
                key=jax.random.key(7),
                cond=jnp.asarray(labels),
                decode=plan.decode,
            )
            features, classes = dx.evaluation.judge(judge, np.asarray(drawn))
            rows[f"{name} {steps}"] = {
                "accuracy": float(np.mean(classes == labels)),
                "distance": dx.evaluation.frechet_distance(features, reference),
            }
    (options.out / "digits_samplers.json").write_text(json.dumps(rows, indent=1))
    show(rows)


def halves(data: dx.data.ImageDataset) -> tuple[dx.data.ImageDataset, dx.data.ImageDataset]:
    """Two thirds for the judge to learn from, one third that it never sees."""
    assert data.labels is not None
    order = np.random.default_rng(0).permutation(len(data))
    split = 2 * len(data) // 3
    first, second = order[:split], order[split:]
    return (
        dx.data.ImageDataset(data.images[first], data.labels[first]),
        dx.data.ImageDataset(data.images[second], data.labels[second]),
    )


def train(data: dx.data.ImageDataset, steps: int) -> dx.models.DDIMModel:
    """A small class-conditional U-Net."""
    backbone = dx.config.UNetBackboneConfig(
        hidden_dims=(32, 64), attention_resolutions=(4,), num_classes=10
    )
    config = dx.config.DDIMConfig.for_data(data, name="digits", backbone=backbone)
    model = dx.models.DDIMModel(config, key=jax.random.key(0))
    return dx.train(model, data, dx.config.TrainingConfig(steps=steps, log_every=100))


def show(rows: dict[str, dict[str, float]]) -> None:
    """Print the table."""
    table = Table("sampler", *(f"{steps} steps" for steps in STEPS))
    real = rows["real, unseen by the judge"]
    table.add_row("real digits", f"{real['accuracy']:.1%} / {real['distance']:.2f}", "", "")
    for name in dict.fromkeys(key.rsplit(" ", 1)[0] for key in list(rows)[1:]):
        cells = (rows[f"{name} {steps}"] for steps in STEPS)
        table.add_row(name, *(f"{c['accuracy']:.1%} / {c['distance']:.2f}" for c in cells))
    Console().print(table)


if __name__ == "__main__":
    main()
