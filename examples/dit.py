"""A diffusion transformer, and what the scale of classifier-free guidance does.

A small DiT learns digits, cut into patches of 2x2, by v. Then the guide's `generate(n, y=, cfg_scale=)`
draws all classes at several scales. Prints, for each, what part is of the class asked for, by a classifier
of real digits, and how different images of one class are from each other; leaves dit.png (a row for each
scale) and results.json in `--out`.
"""

import dataclasses
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from small_model import data_of, trained, unit

from diffusion_eqx.config import DiTConfig, NoiseScheduleConfig
from diffusion_eqx.data import image_grid, save_picture
from diffusion_eqx.evaluation import accuracy, train_classifier
from diffusion_eqx.models import DiTModel

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
    options = tyro.cli(Options, description=__doc__)
    options.out.mkdir(parents=True, exist_ok=True)
    size = 28 if options.full else 8
    data, unseen = data_of((size, size, 1))
    config = DiTConfig(
        img_size=size,
        channels=1,
        patch_size=2,
        hidden_size=192 if options.full else 96,
        depth=8 if options.full else 4,
        num_heads=4,
        num_classes=CLASSES,
        learn_sigma=False,
        noise_schedule=NoiseScheduleConfig(schedule_type="cosine"),
        prediction_type="v_prediction",
    )
    steps = options.steps or (4000 if options.full else 600)
    model = DiTModel(config, key=jax.random.key(0))
    model = trained(model, data, steps=steps, learning_rate=2e-3)
    classifier = train_classifier(data, epochs=3 if options.full else 30, key=jax.random.key(1))
    labels = np.arange(options.judged) % CLASSES
    assert unseen.labels is not None
    results = {
        "real": {
            "accuracy": accuracy(classifier, unseen.images, unseen.labels),
            "spread": spread(unit(unseen.images), unseen.labels),
        }
    }
    rows = []
    for scale in SCALES:
        images = np.asarray(
            model.generate(
                options.judged,
                y=jnp.asarray(labels),
                # As an array, so that the scales share one compiled program.
                cfg_scale=jnp.asarray(scale),
                num_steps=50,
                key=jax.random.key(2),
            )
        )
        results[str(scale)] = {
            "accuracy": accuracy(classifier, images, labels),
            "spread": spread(images, labels),
        }
        rows.append(images[:CLASSES])
    for name, row in results.items():
        print(
            f"scale {name}: {row['accuracy']:.1%} of the class asked for, spread {row['spread']:.3f}"
        )
    (options.out / "results.json").write_text(json.dumps(results, indent=1))
    picture = image_grid(np.concatenate(rows), CLASSES)
    save_picture(options.out / "dit.png", picture, zoom=2 if options.full else 6)


def spread(images: np.ndarray, labels: np.ndarray) -> float:
    """The standard deviation of a pixel among images of one class, averaged."""
    return float(np.mean([images[labels == c].std(axis=0).mean() for c in np.unique(labels)]))


if __name__ == "__main__":
    main()
