"""A diffusion transformer, and what the scale of classifier-free guidance does.

A small DiT learns digits, cut into patches of 2x2, by v. It then draws all classes at several scales. The
script prints two numbers for each scale: the share of images that a classifier of real digits takes for the
class asked for, and how different images of one class are from each other. It leaves dit.png (a row for
each scale) and results.json in `--out`.
"""

import dataclasses
import json
from pathlib import Path

import jax
import numpy as np
import tyro
from small_model import data_of, save_rows, train_judge

import diffusion_eqx as dx

CLASSES = 10
SCALES = (1.0, 2.0, 4.0)


@dataclasses.dataclass(frozen=True)
class Options:
    """Train a diffusion transformer and guide it."""

    out: Path = Path("dit")
    """Folder for the picture and the figures."""
    full: bool = False
    """Fashion-MNIST, a larger transformer and longer training, in place of digits."""
    steps: int | None = None
    """Training steps; by default 600, or 4000 with --full."""
    judged: int = 100
    """Images of each scale."""


def main() -> None:
    """Run the example."""
    dx.use_all_cores()
    options = tyro.cli(Options, description=__doc__)
    options.out.mkdir(parents=True, exist_ok=True)
    data, unseen = data_of((28, 28, 1) if options.full else (8, 8, 1))
    model = train(data, options)
    judge = train_judge(data)
    labels = np.arange(options.judged) % CLASSES
    assert unseen.labels is not None
    results = {
        "real": {
            "accuracy": dx.evaluation.accuracy(judge, unseen.images, unseen.labels),
            "spread": spread(dx.data.to_unit_range(unseen.images), unseen.labels),
        }
    }
    rows = []
    for scale in SCALES:
        drawn = model.sample(
            options.judged, steps=50, labels=labels, guidance=scale, key=jax.random.key(2)
        )
        images = np.asarray(drawn)
        results[str(scale)] = {
            "accuracy": dx.evaluation.accuracy(judge, images, labels),
            "spread": spread(images, labels),
        }
        rows.append(images[:CLASSES])
    for name, row in results.items():
        print(
            f"scale {name}: {row['accuracy']:.1%} of the class asked for, spread {row['spread']:.3f}"
        )
    (options.out / "results.json").write_text(json.dumps(results, indent=1))
    save_rows(options.out / "dit.png", np.concatenate(rows), CLASSES)


def train(data: dx.data.ImageDataset, options: Options) -> dx.models.DiTModel:
    """A class-conditional transformer, trained."""
    config = dx.config.DiTConfig.for_data(
        data,
        patch_size=2,
        hidden_size=192 if options.full else 96,
        depth=8 if options.full else 4,
        num_heads=4,
        noise_schedule=dx.config.NoiseScheduleConfig(schedule_type="cosine"),
        prediction_type="v_prediction",
    )
    training = dx.config.TrainingConfig(
        steps=options.steps or (4000 if options.full else 600), learning_rate=2e-3, log_every=100
    )
    return dx.train(dx.models.DiTModel(config, key=jax.random.key(0)), data, training)


def spread(images: np.ndarray, labels: np.ndarray) -> float:
    """The standard deviation of a pixel among images of one class, averaged."""
    return float(np.mean([images[labels == c].std(axis=0).mean() for c in np.unique(labels)]))


if __name__ == "__main__":
    main()
