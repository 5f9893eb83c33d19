"""What several examples share: data, a small model of them, trained if none is given, and its judge."""

import dataclasses
from pathlib import Path

import jax
import numpy as np

import diffusion_eqx as dx


@dataclasses.dataclass(frozen=True)
class ModelOptions:
    """Which model an example uses."""

    model: Path | None = None
    """A class-conditional DDIM model of Fashion-MNIST or digits, as `diffusion-eqx train` writes it. By
    default the example trains one."""
    full: bool = False
    """Without --model: train on Fashion-MNIST instead of digits of 8x8 pixels."""
    data_dir: Path | None = None
    """Folder of Fashion-MNIST's files, if not where its package puts them."""


@dataclasses.dataclass(frozen=True)
class Setting:
    """A trained, class-conditional model, images that it has seen, and images that it has not."""

    model: dx.models.DDIMModel
    train: dx.data.ImageDataset
    test: dx.data.ImageDataset

    @property
    def classes(self) -> int:
        """Number of classes."""
        assert self.train.num_classes is not None
        return self.train.num_classes

    def of_class(self, label: int, count: int) -> np.ndarray:
        """The first test images of a class, in [−1, 1]."""
        assert self.test.labels is not None
        return dx.data.to_unit_range(self.test.images[self.test.labels == label][:count])


def prepare(options: ModelOptions) -> Setting:
    """Load the model that the options name, or train one.

    **Raises:** `ValueError` if the file holds another kind of model.
    """
    if options.model is None:
        train, test = data_of((28, 28, 1) if options.full else (8, 8, 1), options.data_dir)
        return Setting(train_model(train, steps=1000 if options.full else 1500), train, test)
    model = dx.load_model(options.model)
    if not isinstance(model, dx.models.DDIMModel) or model.num_classes is None:
        raise ValueError(f"{options.model} holds no class-conditional DDIM model")
    return Setting(model, *data_of(model.config.input_shape, options.data_dir))


def data_of(
    shape: tuple[int, int, int], data_dir: Path | None = None
) -> tuple[dx.data.ImageDataset, dx.data.ImageDataset]:
    """Training and test images of a shape: Fashion-MNIST or digits.

    **Raises:** `ValueError` if neither has images of that shape.
    """
    if shape == (8, 8, 1):
        return split(dx.data.digits(), 1500)
    if shape != (28, 28, 1):
        raise ValueError(f"neither digits nor Fashion-MNIST have images of shape {shape}")
    return dx.data.fashion_mnist("train", data_dir), dx.data.fashion_mnist("test", data_dir)


def split(
    data: dx.data.ImageDataset, first: int
) -> tuple[dx.data.ImageDataset, dx.data.ImageDataset]:
    """The first images of a labelled data set, and the others."""
    assert data.labels is not None
    return (
        dx.data.ImageDataset(data.images[:first], data.labels[:first], data.class_names),
        dx.data.ImageDataset(data.images[first:], data.labels[first:], data.class_names),
    )


def train_model(data: dx.data.ImageDataset, *, steps: int) -> dx.models.DDIMModel:
    """A small class-conditional model of a data set, trained."""
    config = dx.config.DDIMConfig.for_data(data, backbone=small_network(data))
    model = dx.models.DDIMModel(config, key=jax.random.key(0))
    return dx.train(model, data, dx.config.TrainingConfig(steps=steps, log_every=100))


def small_network(
    data: dx.data.ImageDataset,
) -> dx.config.UNetBackboneConfig | dx.config.DiTBackboneConfig:
    """A U-Net, or of 8x8 pixels a transformer, all blocks of which are one program: it compiles quickly."""
    if data.shape[0] > 8:
        return dx.config.UNetBackboneConfig(hidden_dims=(16, 32, 64), num_classes=data.num_classes)
    return dx.config.DiTBackboneConfig(
        patch_size=2,
        hidden_size=64,
        depth=4,
        num_heads=4,
        in_channels=data.shape[-1],
        num_classes=data.num_classes,
    )


def train_judge(data: dx.data.ImageDataset) -> dx.evaluation.Classifier:
    """A classifier of real images, which judges drawn ones."""
    epochs = 3 if len(data) > 10_000 else 30
    return dx.evaluation.train_classifier(data, epochs=epochs, key=jax.random.key(1))


def save_rows(path: Path, images: np.ndarray | jax.Array, columns: int) -> None:
    """Write images as one picture of several rows, small images enlarged more."""
    zoom = 2 if images.shape[1] > 8 else 6
    dx.save_picture(path, np.clip(np.asarray(images), -1.0, 1.0), columns=columns, zoom=zoom)
