"""A score model in continuous time, and the equations it solves.

A U-Net learns the score of digits under variance-exploding noise. Images are then drawn by the reverse SDE,
by predictor and corrector, and by the probability-flow ODE with solvers of diffrax, fixed and adaptive. The
script prints the share of images that a classifier of real digits takes for the class asked for. It leaves
score_model.png (a row for each method), trajectory.png and results.json in `--out`.
"""

import dataclasses
import json
from pathlib import Path

import jax
import numpy as np
import tyro
from small_model import data_of, save_rows, small_network, train_judge

import diffusion_eqx as dx

CLASSES = 10
METHODS = {
    "sde:Euler": 200,
    "predictor-corrector": 100,
    "diffrax:Heun": 25,
    "adaptive:Tsit5": 40,
}


@dataclasses.dataclass(frozen=True)
class Options:
    """Learn a score, and solve with it."""

    out: Path = Path("score_model")
    """Folder for the pictures and the figures."""
    full: bool = False
    """Fashion-MNIST and longer training, in place of digits."""
    steps: int | None = None
    """Training steps; by default 1500, or 2000 with --full."""
    judged: int = 100
    """Images of each method."""


def main() -> None:
    """Run the example."""
    dx.use_all_cores()
    options = tyro.cli(Options, description=__doc__)
    options.out.mkdir(parents=True, exist_ok=True)
    data, _ = data_of((28, 28, 1) if options.full else (8, 8, 1))
    model = train(data, options)
    judge = train_judge(data)
    labels = np.arange(options.judged) % CLASSES
    results, rows = {}, []
    for name, steps in METHODS.items():
        drawn = model.sample(
            options.judged, name, steps=steps, labels=labels, guidance=2.0, key=jax.random.key(2)
        )
        images = np.asarray(drawn)
        results[name] = dx.evaluation.accuracy(judge, images, labels)
        rows.append(images[:CLASSES])
        print(f"{name}, {steps} steps: {results[name]:.1%} of the class asked for")
    (options.out / "results.json").write_text(json.dumps(results, indent=1))
    save_rows(options.out / "score_model.png", np.concatenate(rows), CLASSES)

    snapshots = model.trajectory(
        5,
        "diffrax:Heun",
        steps=25,
        every=5,
        labels=np.arange(5),
        guidance=2.0,
        key=jax.random.key(3),
    )
    by_image = np.asarray(snapshots).swapaxes(0, 1).reshape(-1, *data.shape)
    save_rows(options.out / "trajectory.png", by_image, len(snapshots))


def train(data: dx.data.ImageDataset, options: Options) -> dx.models.ScoreDiffusionModel:
    """A class-conditional model of the score, trained."""
    config = dx.config.ScoreDiffusionConfig.for_data(
        data,
        backbone=small_network(data),
        sde_type="ve",
        sigma_max=30.0 if options.full else 10.0,
    )
    training = dx.config.TrainingConfig(
        steps=options.steps or (2000 if options.full else 1500), log_every=100
    )
    return dx.train(dx.models.ScoreDiffusionModel(config, key=jax.random.key(0)), data, training)


if __name__ == "__main__":
    main()
