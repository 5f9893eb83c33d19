"""Each family of models, trained for a few minutes on Fashion-MNIST and judged alike.

    python -m benchmarks.families [--out FOLDER] [--only NAME …]

Trains a U-Net by DDPM with v, a VE score model, a rectified flow, a latent diffusion with its VAE, and a
diffusion transformer; draws 500 images of all classes with guidance 2, and judges them by a classifier of
real images: the share of the class asked for, and the Fréchet distance in its features to the test set.
Beside them: real training images, and noise. Prints a table, writes families.json and a row of images of
each family to families.png.
"""

import dataclasses
import functools
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import tyro
from rich.console import Console
from rich.table import Table

from diffusion_eqx.config import (
    DDIMConfig,
    DDPMConfig,
    DiffusionTrainingConfig,
    DiTConfig,
    LDMConfig,
    NoiseScheduleConfig,
    ScoreDiffusionConfig,
    UNetBackboneConfig,
)
from diffusion_eqx.config.model import ScorePrediction
from diffusion_eqx.data import ArrayDataset, ImageDataset, fashion_mnist, image_grid, save_picture
from diffusion_eqx.evaluation import Classifier, frechet_distance, judge, train_classifier
from diffusion_eqx.models import DDIMModel, DDPMModel, DiTModel, LDMModel, ScoreDiffusionModel
from diffusion_eqx.models.base import AbstractDiffusionModel
from diffusion_eqx.models.build import build_autoencoder
from diffusion_eqx.training import (
    Cadence,
    averaged,
    encode_dataset,
    fit,
    make_recipe,
    measure_scale_factor,
    train_autoencoder,
)

COUNT, CLASSES, SHAPE = 500, 10, (28, 28, 1)
COSINE = NoiseScheduleConfig(schedule_type="cosine")
UNET = UNetBackboneConfig(hidden_dims=(16, 32, 64), attention_resolutions=(8,), num_classes=CLASSES)


@dataclasses.dataclass(frozen=True)
class Options:
    """Train and judge every family."""

    out: Path = Path("benchmarks/results")
    """Folder of the table and the picture."""
    only: tuple[str, ...] = ()
    """Names of the families to run, if not all."""
    effort: float = 1.0
    """Factor on the number of training steps."""
    data_dir: Path | None = None
    """Folder of Fashion-MNIST's files, if not where its package puts them."""


@dataclasses.dataclass(frozen=True)
class Family:
    """How a family is trained, and by which sampler it is drawn from."""

    train: Callable[[ImageDataset, float], AbstractDiffusionModel]
    sampler: str
    steps: int
    fields: dict[str, Any] = dataclasses.field(default_factory=dict)


def trained(
    model: Any, dataset: ImageDataset | ArrayDataset, steps: float, **changes: Any
) -> AbstractDiffusionModel:
    """The model after so many steps, with its averaged weights."""
    total = max(int(steps), 10)
    plan = DiffusionTrainingConfig(steps=total, warmup_steps=min(100, total // 2), **changes)
    recipe = make_recipe(plan, model.training_loss(plan))
    cadence = Cadence(log_every=200)
    state, _ = fit(model.denoiser.backbone, dataset, recipe, plan, cadence=cadence)
    return eqx.tree_at(lambda m: m.denoiser.backbone, model, averaged(state))


def ddpm(data: ImageDataset, effort: float) -> AbstractDiffusionModel:
    """A U-Net that predicts v, on the cosine schedule."""
    config = DDPMConfig(
        backbone=UNET, input_shape=SHAPE, noise_schedule=COSINE, prediction_type="v_prediction"
    )
    return trained(DDPMModel(config, key=jax.random.key(0)), data, 1000 * effort)


def score(
    data: ImageDataset, effort: float, prediction: ScorePrediction = "edm"
) -> AbstractDiffusionModel:
    """A U-Net for the score of variance-exploding noise."""
    config = ScoreDiffusionConfig(
        backbone=UNET, input_shape=SHAPE, sigma_max=30.0, prediction_type=prediction
    )
    model = ScoreDiffusionModel(config, key=jax.random.key(0))
    return trained(model, data, 1000 * effort, loss_weighting="uniform")


def flow(data: ImageDataset, effort: float) -> AbstractDiffusionModel:
    """A U-Net that predicts the velocity of straight lines from noise to data."""
    config = DDIMConfig(
        backbone=UNET,
        input_shape=SHAPE,
        noise_schedule=NoiseScheduleConfig(schedule_type="flow"),
        prediction_type="velocity",
    )
    model = DDIMModel(config, key=jax.random.key(0))
    return trained(model, data, 1000 * effort, loss_weighting="uniform")


def latent(data: ImageDataset, effort: float) -> AbstractDiffusionModel:
    """A VAE of latents 7x7x4, then a U-Net of these."""
    config = LDMConfig(
        input_shape=SHAPE,
        latent_dim=4,
        encoder_type="vae",
        encoder_hidden_dims=(16, 32, 32),
        decoder_hidden_dims=(32, 32, 16),
        backbone=UNetBackboneConfig(
            hidden_dims=(64, 128), in_channels=4, out_channels=4, num_classes=CLASSES
        ),
        noise_schedule=COSINE,
        prediction_type="v_prediction",
    )
    total = max(int(500 * effort), 10)
    plan = DiffusionTrainingConfig(
        steps=total, warmup_steps=min(100, total // 2), learning_rate=2e-3, ema_decay=0.99
    )
    autoencoder = train_autoencoder(
        build_autoencoder(config.autoencoder, key=jax.random.key(1)),
        data,
        plan,
        kl_weight=config.kl_weight,
        cadence=Cadence(log_every=200),
    )
    model = LDMModel(
        config,
        autoencoder=autoencoder,
        scale_factor=measure_scale_factor(autoencoder, data),
        key=jax.random.key(0),
    )
    return trained(model, encode_dataset(model, data), 1500 * effort, learning_rate=2e-3)


def transformer(data: ImageDataset, effort: float) -> AbstractDiffusionModel:
    """A diffusion transformer on patches of 4x4."""
    config = DiTConfig(
        img_size=28,
        channels=1,
        patch_size=4,
        hidden_size=128,
        depth=6,
        num_heads=4,
        num_classes=CLASSES,
        learn_sigma=False,
        noise_schedule=COSINE,
        prediction_type="v_prediction",
    )
    model = DiTModel(config, key=jax.random.key(0))
    return trained(model, data, 1500 * effort, learning_rate=1e-3)


FAMILIES = {
    "U-Net, DDPM with v": Family(ddpm, "ddpm", 100),
    "U-Net, VE score": Family(score, "heun", 25, {"grid": "karras"}),
    "U-Net, VE score, plain": Family(
        functools.partial(score, prediction="score"), "heun", 25, {"grid": "karras"}
    ),
    "U-Net, rectified flow": Family(flow, "heun", 25),
    "latent, VAE and U-Net": Family(latent, "ddim", 50),
    "DiT": Family(transformer, "ddim", 50),
}


def main() -> None:
    """Run the benchmark."""
    options = tyro.cli(Options, description=__doc__)
    options.out.mkdir(parents=True, exist_ok=True)
    data = fashion_mnist("train", options.data_dir)
    test = fashion_mnist("test", options.data_dir)
    assert test.labels is not None
    assert data.labels is not None
    classifier = train_classifier(data, key=jax.random.key(1))
    reference, known = judge(classifier, test.images)
    noise = np.random.default_rng(0).uniform(-1.0, 1.0, (COUNT, *SHAPE)).astype(np.float32)
    labels = np.arange(COUNT) % CLASSES
    results: dict[str, dict[str, float]] = {
        "real test set": {"accuracy": float(np.mean(known == test.labels)), "distance": 0.0},
        f"{COUNT} real training images": judged(
            classifier, data.images[:COUNT], data.labels[:COUNT], reference
        ),
        "uniform noise": judged(classifier, noise, labels, reference),
    }
    rows = []
    for name, family in FAMILIES.items():
        if options.only and name not in options.only:
            continue
        start = time.perf_counter()
        model = family.train(data, options.effort)
        middle = time.perf_counter()
        sampler = model.sampler(family.sampler, guidance_scale=2.0, **family.fields)
        images = np.asarray(
            model.draw(
                COUNT, sampler, family.steps, key=jax.random.key(2), labels=jnp.asarray(labels)
            )
        )
        rows.append(images[:CLASSES])
        results[name] = {
            **judged(classifier, images, labels, reference),
            "training seconds": middle - start,
            "sampling seconds": time.perf_counter() - middle,
            "parameters": model.num_parameters,
        }
        show(results)
        (options.out / "families.json").write_text(json.dumps(results, indent=1))
        picture = image_grid(np.concatenate(rows), CLASSES)
        save_picture(options.out / "families.png", picture, zoom=2)


def judged(
    classifier: Classifier, images: np.ndarray, labels: np.ndarray, reference: np.ndarray
) -> dict[str, float]:
    features, classes = judge(classifier, images)
    return {
        "accuracy": float(np.mean(classes == labels)),
        "distance": frechet_distance(features, reference),
    }


def show(results: dict[str, dict[str, float]]) -> None:
    table = Table("", "class asked for", "Fréchet distance", "training", "sampling", "parameters")
    for name, row in results.items():
        cells = [f"{row['accuracy']:.1%}", f"{row['distance']:.2f}"]
        if "parameters" in row:
            cells += [f"{row[f'{phase} seconds']:.0f} s" for phase in ("training", "sampling")]
            cells.append(f"{row['parameters']:,}")
        table.add_row(name, *cells)
    Console().print(table)


if __name__ == "__main__":
    main()
