"""Data sets by name."""

from pathlib import Path
from typing import Literal

from diffusion_eqx.data import ImageDataset, digits, fashion_mnist


def load_dataset(
    name: str, split: Literal["train", "test"], folder: Path | None = None
) -> ImageDataset:
    """The data set of that name.

    **Raises:** `ValueError` for an unknown name, or a folder or split that the data set does not have.
    """
    if name == "fashion-mnist":
        return fashion_mnist(split, folder)
    if name == "digits":
        if folder is not None or split != "train":
            raise ValueError(
                "digits come with scikit-learn: they have neither folder nor test split"
            )
        return digits()
    raise ValueError(f"unknown data set {name!r}; choose fashion-mnist or digits")
