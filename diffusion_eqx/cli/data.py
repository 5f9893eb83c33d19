"""Data sets as the command line names them."""

from pathlib import Path
from typing import Literal, cast

from diffusion_eqx.data import ImageFolder, ImagesInMemory, digits, emoji, fashion_mnist

_PACKAGED = {"digits": digits, "emoji": emoji}


def load_dataset(
    name: str,
    split: Literal["train", "test"],
    shape: tuple[int, ...],
    folder: Path | None = None,
) -> ImagesInMemory:
    """The data set of that name, or the pictures of that folder.

    - `shape`: (height, width, channels) at which a folder's pictures are read.
    - `folder`: where a packaged data set's files are, if not where its package puts them.

    **Raises:** `ValueError` for an unknown name, for a folder or split that the data set does not have, and
    as `ImageFolder`.
    """
    if name == "fashion-mnist":
        return fashion_mnist(split, folder)
    packaged = _PACKAGED.get(name)
    if packaged is None and not Path(name).is_dir():
        raise ValueError(
            f"unknown data set {name!r}; choose fashion-mnist, {', '.join(_PACKAGED)} or a picture folder"
        )
    if folder is not None or split != "train":
        raise ValueError(
            f"{name} is read from where it is: it has neither another folder nor a test split"
        )
    if packaged is not None:
        return packaged()
    height, width, channels = shape
    # ImageFolder itself refuses other numbers of channels.
    return ImageFolder(name, size=(height, width), channels=cast(Literal[1, 3], channels))
