"""Latent diffusion in two stages: an autoencoder of images, then a diffusion of its latents.

Without options it trains for about a minute on scikit-learn's digits; `--full` is the full setting, on
Fashion-MNIST. It prints how faithful reconstructions of unseen images are (in dB) and how many samples are
of the class asked for. It leaves in the folder `--out`: model.safetensors, results.json, and latent.png,
whose rows are real images, their reconstructions, and samples of each class.
"""

import dataclasses
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from small_model import save_rows, split

import diffusion_eqx as dx

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
    dx.use_all_cores()
    options = tyro.cli(Options, description=__doc__)
    data, held_out = load(options.full)
    config = configuration(data, options.full)
    key_autoencoder, key_model, key_samples, key_judge = jax.random.split(jax.random.key(0), 4)

    print("1. the autoencoder")
    autoencoder = dx.training.train_autoencoder(
        dx.models.build_autoencoder(config.autoencoder, key=key_autoencoder),
        data,
        training(options.autoencoder_steps or (1500 if options.full else 300)),
        kl_weight=config.kl_weight,
    )

    print("2. the diffusion of its latents")
    scale_factor = dx.training.measure_scale_factor(autoencoder, data)
    model = dx.models.LDMModel(
        config, autoencoder=autoencoder, scale_factor=scale_factor, key=key_model
    )
    steps = options.diffusion_steps or (4000 if options.full else 600)
    model = dx.train(model, data, training(steps))
    dx.save_model(options.out / "model.safetensors", model, record={"ema": True})

    print("3. judging")
    model = dx.load_model(options.out / "model.safetensors")
    rebuilt = reconstruct(model, held_out.images)
    originals = dx.data.to_unit_range(held_out.images)
    labels = np.arange(options.samples) % CLASSES
    drawn = model.sample(
        options.samples, "ddim", steps=50, labels=labels, guidance=2.0, key=key_samples
    )
    images = np.asarray(drawn)
    judge = dx.evaluation.train_classifier(data, epochs=8 if options.full else 40, key=key_judge)
    assert held_out.labels is not None
    results = {
        "scale factor": scale_factor,
        "PSNR of reconstructions": dx.evaluation.peak_signal_to_noise_ratio(rebuilt, originals),
        "accuracy of samples": dx.evaluation.accuracy(judge, images, labels),
        "accuracy of real images": dx.evaluation.accuracy(judge, held_out.images, held_out.labels),
    }
    for name, value in results.items():
        print(f"{name}: {value:.3g}")
    (options.out / "results.json").write_text(json.dumps(results, indent=1))
    rows = np.concatenate([originals[:10], rebuilt[:10], images[: min(40, options.samples)]])
    picture = options.out / "latent.png"
    save_rows(picture, rows, CLASSES)
    print(f"look at {picture}: real images, their reconstructions, and samples of each class")


def load(full: bool) -> tuple[dx.data.ImageDataset, dx.data.ImageDataset]:
    """Images to train on, and others that training does not see."""
    if full:
        return dx.data.fashion_mnist("train"), dx.data.fashion_mnist("test")
    held_out, data = split(dx.data.digits(), 300)
    return data, held_out


def configuration(data: dx.data.ImageDataset, full: bool) -> dx.config.LDMConfig:
    """Latents of 4x4x4 for 8x8 digits, of 7x7x4 for 28x28 images."""
    return dx.config.LDMConfig.for_data(
        data,
        name="latent",
        latent_dim=4,
        encoder_type="vae",
        encoder_hidden_dims=(32, 64, 64) if full else (16, 32),
        decoder_hidden_dims=(64, 64, 32) if full else (32, 16),
        backbone=dx.config.UNetBackboneConfig(
            hidden_dims=(64, 128) if full else (32, 64),
            in_channels=4,
            out_channels=4,
            num_classes=CLASSES,
        ),
    )


def training(steps: int) -> dx.config.TrainingConfig:
    """How each stage is trained."""
    return dx.config.TrainingConfig(
        steps=steps,
        warmup_steps=steps // 20,
        learning_rate=2e-3,
        ema_decay=0.99,
        log_every=100,
    )


def reconstruct(
    model: dx.models.AbstractDiffusionModel, images: np.ndarray, *, batch_size: int = 500
) -> np.ndarray:
    """Images encoded and decoded again."""
    parts = [images[i : i + batch_size] for i in range(0, len(images), batch_size)]
    latents = [model.encode(dx.data.to_unit_range(jnp.asarray(part))) for part in parts]
    return np.concatenate([np.asarray(model.decode(x)) for x in latents])


if __name__ == "__main__":
    main()
