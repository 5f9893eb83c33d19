"""Fashion-MNIST (Xiao et al. 2017): 60,000 + 10,000 images of clothes, 28x28 grey, ten classes."""

from pathlib import Path
from typing import Literal

import numpy as np

from diffusion_eqx.data.idx import read_idx
from diffusion_eqx.data.image_dataset import ImageDataset
from diffusion_eqx.data.packaged import find_packaged

CLASS_NAMES = (
    "t-shirt",
    "trouser",
    "pullover",
    "dress",
    "coat",
    "sandal",
    "shirt",
    "sneaker",
    "bag",
    "ankle boot",
)

_PACKAGE_PLACE = "usr/share/datasets/fashion-mnist"


def fashion_mnist(
    split: Literal["train", "test"] = "train", folder: str | Path | None = None
) -> ImageDataset:
    """Fashion-MNIST with its labels: (60000 or 10000, 28, 28, 1) uint8.

    - `split`: the 60,000 images for training, or the 10,000 for testing.
    - `folder`: holds the four original `*-ubyte.gz` files. By default they are taken from where Debian's
      package `dataset-fashion-mnist` puts them.

    **Raises:** `FileNotFoundError` if a file is not found; the message names the places searched and the
    package to install.
    """
    prefix = {"train": "train", "test": "t10k"}[split]
    folder = _find() if folder is None else Path(folder)
    images = _read(folder / f"{prefix}-images-idx3-ubyte.gz")
    labels = _read(folder / f"{prefix}-labels-idx1-ubyte.gz")
    return ImageDataset(images[..., None], labels, CLASS_NAMES)


def _find() -> Path:
    first = find_packaged(
        f"{_PACKAGE_PLACE}/train-images-idx3-ubyte.gz",
        what="Fashion-MNIST",
        package="dataset-fashion-mnist",
        remedy="the folder that holds its four *-ubyte.gz files",
    )
    return first.parent


def _read(path: Path) -> np.ndarray:
    if not path.exists():
        raise FileNotFoundError(
            f"{path} is missing; the folder must hold the four *-ubyte.gz files"
        )
    return read_idx(path)
