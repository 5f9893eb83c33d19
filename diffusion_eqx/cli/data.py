"""Data sets by name."""

from pathlib import Path
from typing import Literal

from diffusion_eqx.data import ImageDataset, digits, emoji, fashion_mnist

_PACKAGED = {"digits": digits, "emoji": emoji}


def load_dataset(
    name: str, split: Literal["train", "test"], folder: Path | None = None
) -> ImageDataset:
    """The data set of that name.

    **Raises:** `ValueError` for an unknown name, or a folder or split that the data set does not have.
    """
    if name == "fashion-mnist":
        return fashion_mnist(split, folder)
    if name not in _PACKAGED:
        raise ValueError(
            f"unknown data set {name!r}; choose fashion-mnist, {' or '.join(_PACKAGED)}"
        )
    if folder is not None or split != "train":
        raise ValueError(
            f"{name} is read from where its package is: it has neither folder nor test split"
        )
    return _PACKAGED[name]()
