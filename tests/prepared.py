"""The small files that pages of the documentation ask for by `<!-- needs: … -->`."""

from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np

import diffusion_eqx as dx


def model(folder: Path) -> None:
    """demo/model.safetensors: what `make demo` leaves there, but of 8x8 digits and hardly trained."""
    data = dx.data.digits()
    config = dx.config.DDIMConfig(
        name="digits",
        input_shape=(8, 8, 1),
        backbone=dx.config.UNetBackboneConfig(
            hidden_dims=(8, 16), time_embedding_dim=16, num_classes=10
        ),
        noise_schedule=dx.config.NoiseScheduleConfig(schedule_type="cosine"),
        prediction_type="v_prediction",
        num_inference_steps=10,
    )
    training = dx.config.TrainingConfig(steps=40, batch_size=64)
    model = dx.models.DDIMModel(config, key=jax.random.key(0))
    dx.train(model, data, training, out=folder / "demo")


def pictures(folder: Path) -> None:
    """pictures/light and pictures/dark: 24 small pictures of two classes."""
    from PIL import Image

    random = np.random.default_rng(0)
    for name, brightness in (("dark", 60), ("light", 190)):
        (folder / "pictures" / name).mkdir(parents=True)
        for number in range(12):
            pixels = random.integers(-40, 40, (20, 24, 3)) + brightness
            Image.fromarray(pixels.astype(np.uint8)).save(
                folder / "pictures" / name / f"{number}.png"
            )


MAKERS: dict[str, Callable[[Path], None]] = {"model": model, "pictures": pictures}


def make(folder: Path) -> None:
    """Make all files, each kind in a folder of its own."""
    for name, maker in MAKERS.items():
        maker(folder / name)
