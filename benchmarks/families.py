"""Each family of models, trained for a few minutes on Fashion-MNIST and judged alike.

    python -m benchmarks.families [--out FOLDER] [--only NAME …]

Trains a U-Net by DDPM with v, a VE score model, a rectified flow, a latent diffusion with its VAE, and a
diffusion transformer, and draws 500 images of all classes with each at guidance 2. A classifier of real
images judges them: by the share of the class asked for, and by the Fréchet distance to the test set in its
features. Real training images and noise stand beside them. Prints a table, and writes families.json and
families.png, which has a row of images of each family.
"""

import dataclasses
import functools
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import jax
import numpy as np
import tyro
from rich.console import Console
from rich.table import Table

import diffusion_eqx as dx

ModelT = TypeVar("ModelT", bound=dx.models.AbstractDiffusionModel)

CLASSES, SHAPE = 10, (28, 28, 1)
COSINE = dx.config.NoiseScheduleConfig(schedule_type="cosine")
UNET = dx.config.UNetBackboneConfig(
    hidden_dims=(16, 32, 64), attention_resolutions=(8,), num_classes=CLASSES
)


@dataclasses.dataclass(frozen=True)
class Options:
    """Train and judge every family."""

    out: Path = Path("benchmarks/results")
    """Folder of the table and the picture."""
    only: tuple[str, ...] = ()
    """Names of the families to run, if not all."""
    effort: float = 1.0
    """Factor on the number of training steps."""
    count: int = 500
    """Images that each family draws."""
    epochs: int = 8
    """How often the judge sees each real image while it learns."""
    data_dir: Path | None = None
    """Folder of Fashion-MNIST's files, if not where its package puts them."""


@dataclasses.dataclass(frozen=True)
class Family:
    """How a family is trained, and which sampler draws from it."""

    train: Callable[[dx.data.ImageDataset, float], dx.models.AbstractDiffusionModel]
    sampler: dx.samplers.AbstractSampler
    steps: int


def trained(
    model: ModelT, data: dx.data.ImageDataset, steps: float, learning_rate: float = 3e-3
) -> ModelT:
    """The model after so many steps, with its averaged weights."""
    config = dx.config.TrainingConfig(
        steps=max(int(steps), 10), learning_rate=learning_rate, log_every=200
    )
    return dx.train(model, data, config)


def ddpm(data: dx.data.ImageDataset, effort: float) -> dx.models.DDPMModel:
    """A U-Net that predicts v, on the cosine schedule."""
    config = dx.config.DDPMConfig.for_data(data, backbone=UNET)
    return trained(dx.models.DDPMModel(config, key=jax.random.key(0)), data, 1000 * effort)


def score(
    data: dx.data.ImageDataset, effort: float, *, plain: bool = False
) -> dx.models.ScoreDiffusionModel:
    """A U-Net for the score of variance-exploding noise."""
    config = dx.config.ScoreDiffusionConfig.for_data(
        data, backbone=UNET, sigma_max=30.0, prediction_type="score" if plain else "edm"
    )
    model = dx.models.ScoreDiffusionModel(config, key=jax.random.key(0))
    return trained(model, data, 1000 * effort)


def flow(data: dx.data.ImageDataset, effort: float) -> dx.models.DDIMModel:
    """A U-Net that predicts the velocity of straight lines from noise to data."""
    config = dx.config.DDIMConfig.for_data(
        data,
        backbone=UNET,
        noise_schedule=dx.config.NoiseScheduleConfig(schedule_type="flow"),
        prediction_type="velocity",
    )
    return trained(dx.models.DDIMModel(config, key=jax.random.key(0)), data, 1000 * effort)


def latent(data: dx.data.ImageDataset, effort: float) -> dx.models.LDMModel:
    """A VAE of latents 7x7x4, then a U-Net of these."""
    config = dx.config.LDMConfig.for_data(
        data,
        latent_dim=4,
        encoder_type="vae",
        encoder_hidden_dims=(16, 32, 32),
        decoder_hidden_dims=(32, 32, 16),
        backbone=dx.config.UNetBackboneConfig(
            hidden_dims=(64, 128), in_channels=4, out_channels=4, num_classes=CLASSES
        ),
    )
    first_stage = dx.config.TrainingConfig(
        steps=max(int(500 * effort), 10), learning_rate=2e-3, ema_decay=0.99, log_every=200
    )
    autoencoder = dx.training.train_autoencoder(
        dx.models.build_autoencoder(config.autoencoder, key=jax.random.key(1)),
        data,
        first_stage,
        kl_weight=config.kl_weight,
    )
    model = dx.models.LDMModel(
        config,
        autoencoder=autoencoder,
        scale_factor=dx.training.measure_scale_factor(autoencoder, data),
        key=jax.random.key(0),
    )
    return trained(model, data, 1500 * effort, learning_rate=2e-3)


def transformer(data: dx.data.ImageDataset, effort: float) -> dx.models.DiTModel:
    """A diffusion transformer on patches of 4x4."""
    config = dx.config.DiTConfig.for_data(
        data,
        patch_size=4,
        hidden_size=128,
        depth=6,
        num_heads=4,
        noise_schedule=COSINE,
        prediction_type="v_prediction",
    )
    model = dx.models.DiTModel(config, key=jax.random.key(0))
    return trained(model, data, 1500 * effort, learning_rate=1e-3)


HEUN, KARRAS = dx.samplers.HeunSampler(), dx.samplers.HeunSampler(grid=dx.samplers.KarrasGrid())
DDIM = dx.samplers.DDIMSampler()
FAMILIES = {
    "U-Net, DDPM with v": Family(ddpm, dx.samplers.DDPMSampler(), 100),
    "U-Net, VE score": Family(score, KARRAS, 25),
    "U-Net, VE score, plain": Family(functools.partial(score, plain=True), KARRAS, 25),
    "U-Net, rectified flow": Family(flow, HEUN, 25),
    "latent, VAE and U-Net": Family(latent, DDIM, 50),
    "DiT": Family(transformer, DDIM, 50),
}


def main() -> None:
    """Run the benchmark."""
    dx.use_all_cores()
    options = tyro.cli(Options, description=__doc__)
    options.out.mkdir(parents=True, exist_ok=True)
    data = dx.data.fashion_mnist("train", options.data_dir)
    test = dx.data.fashion_mnist("test", options.data_dir)
    assert test.labels is not None
    assert data.labels is not None
    judge = dx.evaluation.train_classifier(data, epochs=options.epochs, key=jax.random.key(1))
    count = options.count
    reference, known = dx.evaluation.judge(judge, test.images)
    noise = np.random.default_rng(0).uniform(-1.0, 1.0, (count, *SHAPE)).astype(np.float32)
    labels = np.arange(count) % CLASSES
    results: dict[str, dict[str, float]] = {
        "real test set": {"accuracy": float(np.mean(known == test.labels)), "distance": 0.0},
        f"{count} real training images": judged(
            judge, data.images[:count], data.labels[:count], reference
        ),
        "uniform noise": judged(judge, noise, labels, reference),
    }
    rows = []
    for name, family in FAMILIES.items():
        if options.only and name not in options.only:
            continue
        start = time.perf_counter()
        model = family.train(data, options.effort)
        middle = time.perf_counter()
        drawn = model.sample(
            count,
            family.sampler,
            steps=family.steps,
            labels=labels,
            guidance=2.0,
            key=jax.random.key(2),
        )
        images = np.asarray(drawn)
        rows.append(images[:CLASSES])
        results[name] = {
            **judged(judge, images, labels, reference),
            "training seconds": middle - start,
            "sampling seconds": time.perf_counter() - middle,
            "parameters": model.num_parameters,
        }
        show(results)
        (options.out / "families.json").write_text(json.dumps(results, indent=1))
        picture = np.concatenate(rows)
        dx.save_picture(options.out / "families.png", picture, columns=CLASSES, zoom=2)


def judged(
    judge: dx.evaluation.Classifier, images: np.ndarray, labels: np.ndarray, reference: np.ndarray
) -> dict[str, float]:
    """The share of images of their label's class, and the distance to the reference."""
    features, classes = dx.evaluation.judge(judge, images)
    return {
        "accuracy": float(np.mean(classes == labels)),
        "distance": dx.evaluation.frechet_distance(features, reference),
    }


def show(results: dict[str, dict[str, float]]) -> None:
    """Print the table."""
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
