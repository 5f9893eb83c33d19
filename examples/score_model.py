"""A score model in continuous time, and the equations it solves.

A U-Net learns the score of digits under variance-exploding noise. Images are then drawn by the reverse SDE,
by predictor and corrector, and by the probability-flow ODE with solvers of diffrax, fixed and adaptive.
Prints what part is of the class asked for, by a classifier of real digits, and leaves score_model.png (a
row for each method), trajectory.png and results.json in `--out`.
"""

import dataclasses
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from small_model import data_of, trained

from diffusion_eqx.config import ScoreDiffusionConfig, UNetBackboneConfig
from diffusion_eqx.data import image_grid, save_picture
from diffusion_eqx.evaluation import accuracy, train_classifier
from diffusion_eqx.models import ScoreDiffusionModel

CLASSES = 10
METHODS = {
    "sde:Euler": 200,
    "predictor_corrector": 100,
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
    """Training steps; by default 500, or 2000 with --full."""
    judged: int = 100
    """Images of each method."""


def main() -> None:
    """Run the example."""
    options = tyro.cli(Options, description=__doc__)
    options.out.mkdir(parents=True, exist_ok=True)
    shape = (28, 28, 1) if options.full else (8, 8, 1)
    data, _ = data_of(shape)
    config = ScoreDiffusionConfig(
        backbone=UNetBackboneConfig(
            hidden_dims=(16, 32, 64) if options.full else (32, 64), num_classes=CLASSES
        ),
        input_shape=shape,
        sde_type="ve",
        sigma_max=30.0 if options.full else 10.0,
    )
    steps = options.steps or (2000 if options.full else 500)
    model = ScoreDiffusionModel(config, key=jax.random.key(0))
    model = trained(model, data, steps=steps, loss_weighting="uniform")
    classifier = train_classifier(data, epochs=3 if options.full else 30, key=jax.random.key(1))
    labels = np.arange(options.judged) % CLASSES
    results, rows = {}, []
    for name, count in METHODS.items():
        images = np.asarray(
            model.sample(
                options.judged,
                count,
                scheduler=name,
                key=jax.random.key(2),
                labels=jnp.asarray(labels),
                guidance_scale=2.0,
            )
        )
        results[name] = accuracy(classifier, images, labels)
        rows.append(images[:CLASSES])
        print(f"{name}, {count} steps: {results[name]:.1%} of the class asked for")
    (options.out / "results.json").write_text(json.dumps(results, indent=1))
    zoom = 2 if options.full else 6
    picture = image_grid(np.concatenate(rows), CLASSES)
    save_picture(options.out / "score_model.png", picture, zoom=zoom)

    snapshots = model.sample(
        5,
        25,
        return_trajectory=True,
        scheduler="diffrax:Heun",
        every=5,
        key=jax.random.key(3),
        labels=jnp.arange(5),
        guidance_scale=2.0,
    )
    by_image = np.asarray(jnp.swapaxes(snapshots, 0, 1)).reshape(-1, *shape)
    save_picture(options.out / "trajectory.png", image_grid(by_image, len(snapshots)), zoom=zoom)


if __name__ == "__main__":
    main()
