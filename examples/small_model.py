"""What the examples share: data, a small model of it (trained here if none is given), and a judge."""

import dataclasses
from pathlib import Path
from typing import Any, TypeVar

import equinox as eqx
import jax
import numpy as np

from diffusion_eqx.config import (
    DDIMConfig,
    DiffusionTrainingConfig,
    NoiseScheduleConfig,
    UNetBackboneConfig,
)
from diffusion_eqx.data import ImageDataset, digits, fashion_mnist
from diffusion_eqx.denoiser import AbstractDenoiser
from diffusion_eqx.models import DDIMModel, load_model
from diffusion_eqx.models.base import AbstractDiffusionModel
from diffusion_eqx.training import Cadence, averaged, fit, make_recipe

ModelT = TypeVar("ModelT", bound=AbstractDiffusionModel)


@dataclasses.dataclass(frozen=True)
class ModelOptions:
    """Which model an example uses."""

    model: Path | None = None
    """A class-conditional DDIM model of Fashion-MNIST or digits, as `diffusion-eqx train` writes it; by
    default one is trained here."""
    full: bool = False
    """Without --model: train on Fashion-MNIST, not on digits of 8x8 pixels."""
    data_dir: Path | None = None
    """Folder of Fashion-MNIST's files, if not where its package puts them."""


@dataclasses.dataclass(frozen=True)
class Setting:
    """A trained, class-conditional model, and data that it has and has not seen."""

    model: DDIMModel
    train: ImageDataset
    test: ImageDataset

    @property
    def denoiser(self) -> AbstractDenoiser:
        """The model's denoiser, as it is: neither guided nor clipped."""
        return eqx.nn.inference_mode(self.model.denoiser)

    def of_class(self, label: int, count: int) -> np.ndarray:
        """The first test images of a class, in [−1, 1]."""
        assert self.test.labels is not None
        return unit(self.test.images[self.test.labels == label][:count])


def prepare(options: ModelOptions) -> Setting:
    """Load the model that the options name, or train one.

    **Raises:** `ValueError` if the file holds another kind of model.
    """
    if options.model is None:
        train, test = data_of((28, 28, 1) if options.full else (8, 8, 1), options.data_dir)
        return Setting(train_model(train, steps=1000 if options.full else 600), train, test)
    model = load_model(options.model).model
    if not isinstance(model, DDIMModel) or model.num_classes is None:
        raise ValueError(f"{options.model} holds no class-conditional DDIM model")
    return Setting(model, *data_of(model.config.input_shape, options.data_dir))


def data_of(
    shape: tuple[int, int, int], data_dir: Path | None = None
) -> tuple[ImageDataset, ImageDataset]:
    """Training and test images of that shape: Fashion-MNIST or digits.

    **Raises:** `ValueError` if neither has it.
    """
    if shape == (8, 8, 1):
        return _split(digits(), 1500)
    if shape != (28, 28, 1):
        raise ValueError(f"neither digits nor Fashion-MNIST have images of shape {shape}")
    return fashion_mnist("train", data_dir), fashion_mnist("test", data_dir)


def train_model(dataset: ImageDataset, *, steps: int) -> DDIMModel:
    """A small class-conditional model of a data set."""
    config = DDIMConfig(
        backbone=UNetBackboneConfig(
            hidden_dims=(16, 32, 64) if dataset.images.shape[1] > 8 else (32, 64),
            num_classes=dataset.num_classes,
        ),
        noise_schedule=NoiseScheduleConfig(schedule_type="cosine"),
        input_shape=dataset.images.shape[1:],
        prediction_type="v_prediction",
    )
    return trained(DDIMModel(config, key=jax.random.key(0)), dataset, steps=steps)


def trained(model: ModelT, dataset: ImageDataset, *, steps: int, **changes: Any) -> ModelT:
    """A model of pixels after so many training steps, with its averaged weights."""
    training = DiffusionTrainingConfig(steps=steps, warmup_steps=steps // 10, **changes)
    recipe = make_recipe(training, model.training_loss(training))
    state, _ = fit(
        model.denoiser.backbone, dataset, recipe, training, cadence=Cadence(log_every=100)
    )
    return eqx.tree_at(lambda m: m.denoiser.backbone, model, averaged(state))


def unit(images: np.ndarray) -> np.ndarray:
    """uint8 images, or floats that are already there, in [−1, 1]."""
    return images / np.float32(127.5) - 1 if images.dtype == np.uint8 else images


def _split(dataset: ImageDataset, first: int) -> tuple[ImageDataset, ImageDataset]:
    assert dataset.labels is not None
    return (
        ImageDataset(dataset.images[:first], dataset.labels[:first], dataset.class_names),
        ImageDataset(dataset.images[first:], dataset.labels[first:], dataset.class_names),
    )
