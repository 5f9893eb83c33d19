"""Classes from a model that knows none: classifier guidance of an unconditional model of digits.

An unconditional U-Net learns to draw digits, and a classifier learns to tell noisy digits apart; its
gradient leads the U-Net to the class that is wanted (Dhariwal & Nichol 2021). A second classifier, of clean
digits only, which has no part in the drawing, judges what was drawn at several scales of guidance.

Leaves in the folder `--out`: guided.png (a row of every class for each scale) and results.json. Without
`--full` it takes less than two minutes of processor time.
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
    NoisyClassifierConfig,
    UNetBackboneConfig,
)
from diffusion_eqx.data import ImageDataset, digits, image_grid, save_picture
from diffusion_eqx.denoiser import Denoiser
from diffusion_eqx.evaluation import (
    Classifier,
    NoisyClassifier,
    accuracy,
    noisy_accuracy,
    train_classifier,
    train_noisy_classifier,
)
from diffusion_eqx.guidance import ClassifierGuidance, ClipDenoised
from diffusion_eqx.models import DDIMModel
from diffusion_eqx.samplers import ClippedSampler, DDIMSampler, sample
from diffusion_eqx.training import averaged, fit, make_recipe

CLASSES = 10
SCALES = (0.0, 0.5, 1.0, 2.0, 4.0)
NOISE = NoiseScheduleConfig(schedule_type="cosine")


@dataclasses.dataclass(frozen=True)
class Options:
    """Guide an unconditional model of digits by a classifier of noisy digits."""

    out: Path = Path("classifier-guidance")
    """Folder for the picture and the figures."""
    full: bool = False
    """Train longer and judge more images."""


def main() -> None:
    """Run the example."""
    options = tyro.cli(Options, description=__doc__)
    options.out.mkdir(parents=True, exist_ok=True)
    console = Console()
    data = digits()
    assert data.labels is not None
    train_set = ImageDataset(data.images[:1500], data.labels[:1500], data.class_names)
    held_out, truth = data.images[1500:], data.labels[1500:]

    model = train_model(train_set, steps=4000 if options.full else 400)
    noisy = train_noisy(train_set, epochs=80 if options.full else 15)
    judge = train_classifier(
        train_set, epochs=25 if options.full else 15, batch_size=100, key=jax.random.key(3)
    )
    results = {
        "judge's accuracy on unseen digits": accuracy(judge, held_out, truth),
        "noisy classifier's accuracy on unseen digits": {
            str(t): noisy_accuracy(noisy, held_out, truth, t, key=jax.random.key(4))
            for t in (0.2, 0.5, 0.8)
        },
    }
    drawn = {
        scale: draw(model.denoiser, noisy, scale, each=100 if options.full else 10)
        for scale in SCALES
    }
    results["accuracy by scale"] = {
        str(scale): share_of_class_asked_for(judge, images) for scale, images in drawn.items()
    }
    rows = np.concatenate([images[:CLASSES] for images in drawn.values()])
    save_picture(options.out / "guided.png", image_grid(rows, CLASSES), zoom=6)
    (options.out / "results.json").write_text(json.dumps(results, indent=1))
    show(console, results, options.out / "guided.png")


def train_model(data: ImageDataset, steps: int) -> DDIMModel:
    """An unconditional model of digits."""
    config = DDIMConfig(
        name="digits",
        backbone=UNetBackboneConfig(hidden_dims=(32, 64), time_embedding_dim=64),
        noise_schedule=NOISE,
        input_shape=(8, 8, 1),
        prediction_type="v_prediction",
    )
    training = DiffusionTrainingConfig(
        steps=steps, batch_size=64, learning_rate=2e-3, ema_decay=0.995
    )
    model = DDIMModel(config, key=jax.random.key(0))
    recipe = make_recipe(training, model.training_loss(training))
    images_only = ImageDataset(data.images)
    state, _ = fit(model.denoiser.backbone, images_only, recipe, training)
    return eqx.tree_at(lambda m: m.denoiser.backbone, model, averaged(state))


def train_noisy(data: ImageDataset, epochs: int) -> NoisyClassifier:
    """A classifier of digits at every noise level."""
    config = NoisyClassifierConfig(input_shape=(8, 8, 1), noise_schedule=NOISE)
    return train_noisy_classifier(data, config, epochs=epochs, key=jax.random.key(1))


def draw(denoiser: Denoiser, classifier: NoisyClassifier, scale: float, each: int) -> np.ndarray:
    """So many images of each class, all classes in turn, from the same noise for each scale."""
    labels = jnp.tile(jnp.arange(CLASSES), each)
    # As an array, the scale is an input of one compiled program, not a part of five.
    guided = ClipDenoised(ClassifierGuidance(denoiser, classifier, jnp.asarray(scale), labels))
    sampler = ClippedSampler(DDIMSampler(guided, eta=1.0))
    images = sample(sampler, (8, 8, 1), count=len(labels), steps=25, key=jax.random.key(2))
    return np.asarray(images)


def share_of_class_asked_for(judge: Classifier, images: np.ndarray) -> float:
    """What part of the images the judge takes for the class that was asked for."""
    return accuracy(judge, images, np.arange(len(images)) % CLASSES)


def show(console: Console, results: dict, picture: Path) -> None:
    """Print the table, and where the picture is."""
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
