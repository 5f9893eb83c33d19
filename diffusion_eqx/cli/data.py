"""Data sets as the command line names them."""

from pathlib import Path
from typing import Literal, cast

from diffusion_eqx.data import ImageFolder, ImagesInMemory, digits, emoji, fashion_mnist

_PACKAGED = {"digits": digits, "emoji": emoji}


def load_dataset(
    name: str, size: tuple[int, int], channels: int | None = None, folder: Path | None = None
) -> ImagesInMemory:
    """The data set of that name, or the pictures of that folder.

    - `size`: (height, width) at which a folder's pictures are read.
    - `channels`: in how many channels they are read; None: in their own.
    - `folder`: where a packaged data set's files are, if not where its package puts them.

    **Raises:** `ValueError` for an unknown name, for a folder where the data set has none, and as
    `ImageFolder`.
    """
    if name == "fashion-mnist":
        return fashion_mnist("train", folder)
    packaged = _PACKAGED.get(name)
    if packaged is None and not Path(name).is_dir():
        raise ValueError(
            f"unknown data set {name!r}; choose fashion-mnist, {', '.join(_PACKAGED)} or a picture folder"
        )
    if folder is not None:
        raise ValueError(f"{name} is read from where it is: leave out --data-dir")
    if packaged is not None:
        return packaged()
    # ImageFolder itself refuses other numbers of channels.
    return ImageFolder(name, size=size, channels=cast(Literal[1, 3] | None, channels))
