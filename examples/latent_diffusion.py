"""Latent diffusion in two stages: an autoencoder of images, then a diffusion of its latents.

Without options it trains for about a minute on scikit-learn's digits; `--full` is the full setting, on
Fashion-MNIST. It prints how faithful reconstructions of unseen images are (in dB) and how many samples are
of the class asked for, and leaves in the folder `--out`: model.safetensors, results.json, and latent.png,
whose rows are real images, their reconstructions, and samples of each class.
"""

import dataclasses
import json
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import tyro

from diffusion_eqx.config import (
    DiffusionTrainingConfig,
    LDMConfig,
    NoiseScheduleConfig,
    UNetBackboneConfig,
)
from diffusion_eqx.data import (
    ImageDataset,
    digits,
    fashion_mnist,
    image_grid,
    save_picture,
    to_unit_range,
)
from diffusion_eqx.evaluation import accuracy, peak_signal_to_noise_ratio, train_classifier
from diffusion_eqx.models import LDMModel, load_model, save_model
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

CLASSES = 10


@dataclasses.dataclass(frozen=True)
class Options:
    """Train an autoencoder and a latent diffusion, and judge both."""

    out: Path = Path("latent")
    """Folder for what the example makes."""
    full: bool = False
    """Fashion-MNIST and longer training, in place of digits."""
    autoencoder_steps: int | None = None
    """Training steps of the autoencoder; by default 300, or 1500 with --full."""
    diffusion_steps: int | None = None
    """Training steps of the diffusion; by default 600, or 4000 with --full."""
    samples: int = 500
    """Images that are judged."""


def main() -> None:
    """Run the example."""
    options = tyro.cli(Options, description=__doc__)
    dataset, held_out = load(options.full)
    config = configuration(options.full)
    key_autoencoder, key_model, key_samples, key_judge = jax.random.split(jax.random.key(0), 4)

    print("1. the autoencoder")
    autoencoder = train_autoencoder(
        build_autoencoder(config.autoencoder, key=key_autoencoder),
        dataset,
        training(options.autoencoder_steps or (1500 if options.full else 300)),
        kl_weight=config.kl_weight,
        cadence=Cadence(log_every=100),
    )

    print("2. the diffusion of its latents")
    scale_factor = measure_scale_factor(autoencoder, dataset)
    model = LDMModel(config, autoencoder=autoencoder, scale_factor=scale_factor, key=key_model)
    plan = training(options.diffusion_steps or (4000 if options.full else 600))
    state, _ = fit(
        model.denoiser.backbone,
        encode_dataset(model, dataset),
        make_recipe(plan, model.training_loss(plan)),
        plan,
        cadence=Cadence(log_every=200),
    )
    model = eqx.tree_at(lambda m: m.denoiser.backbone, model, averaged(state))
    save_model(options.out / "model.safetensors", model, ema=True)

    print("3. judging")
    model = load_model(options.out / "model.safetensors").model
    assert isinstance(model, LDMModel)
    rebuilt = reconstruct(model, held_out.images)
    originals = np.asarray(to_unit_range(jnp.asarray(held_out.images)))
    labels = jnp.arange(options.samples) % CLASSES
    drawn = np.asarray(
        model.sample(
            options.samples, "ddim", 50, key=key_samples, labels=labels, guidance_scale=2.0
        )
    )
    classifier = train_classifier(dataset, epochs=8 if options.full else 40, key=key_judge)
    assert held_out.labels is not None
    results = {
        "scale factor": scale_factor,
        "PSNR of reconstructions": peak_signal_to_noise_ratio(rebuilt, originals),
        "accuracy of samples": accuracy(classifier, drawn, labels),
        "accuracy of real images": accuracy(classifier, held_out.images, held_out.labels),
    }
    for name, value in results.items():
        print(f"{name}: {value:.3g}")
    (options.out / "results.json").write_text(json.dumps(results, indent=1))
    rows = np.concatenate([originals[:10], rebuilt[:10], drawn[: min(40, options.samples)]])
    picture = options.out / "latent.png"
    save_picture(picture, image_grid(rows, columns=CLASSES), zoom=2 if options.full else 6)
    print(f"look at {picture}: real images, their reconstructions, and samples of each class")


def load(full: bool) -> tuple[ImageDataset, ImageDataset]:
    """Images to train on, and others that training does not see."""
    if full:
        return fashion_mnist("train"), fashion_mnist("test")
    whole = digits()
    assert whole.labels is not None
    return (
        ImageDataset(whole.images[300:], whole.labels[300:], whole.class_names),
        ImageDataset(whole.images[:300], whole.labels[:300], whole.class_names),
    )


def configuration(full: bool) -> LDMConfig:
    """Latents of 4x4x4 for 8x8 digits, of 7x7x4 for 28x28 images."""
    return LDMConfig(
        name="latent",
        input_shape=(28, 28, 1) if full else (8, 8, 1),
        latent_dim=4,
        encoder_type="vae",
        encoder_hidden_dims=(32, 64, 64) if full else (16, 32),
        decoder_hidden_dims=(64, 64, 32) if full else (32, 16),
        backbone=UNetBackboneConfig(
            hidden_dims=(64, 128) if full else (32, 64),
            in_channels=4,
            out_channels=4,
            num_classes=CLASSES,
        ),
        noise_schedule=NoiseScheduleConfig(schedule_type="cosine"),
        prediction_type="v_prediction",
    )


def training(steps: int) -> DiffusionTrainingConfig:
    """How each stage is trained."""
    return DiffusionTrainingConfig(
        steps=steps, warmup_steps=steps // 20, learning_rate=2e-3, ema_decay=0.99
    )


def reconstruct(model: LDMModel, images: np.ndarray, *, batch_size: int = 500) -> np.ndarray:
    """Images encoded and decoded again."""

    @eqx.filter_jit
    def run(model: LDMModel, images: jax.Array) -> jax.Array:
        return model.decode(model.encode(to_unit_range(images)))

    parts = range(0, len(images), batch_size)
    return np.concatenate(
        [np.asarray(run(model, jnp.asarray(images[i : i + batch_size]))) for i in parts]
    )


if __name__ == "__main__":
    main()
