"""Data sets as the command line names them."""

from pathlib import Path
from typing import Any

from diffusion_eqx.data import (
    ArrayDataset,
    ImagesInMemory,
    digits,
    emoji,
    fashion_mnist,
    open_dataset,
)

_PACKAGED = {"digits": digits, "emoji": emoji}


def load_dataset(
    name: str,
    size: tuple[int, int],
    channels: int | None = None,
    folder: Path | None = None,
    labels: Path | None = None,
) -> ImagesInMemory:
    """The data set of that name, or of that folder or file.

    - `size`: (height, width) at which a folder's pictures are read.
    - `channels`: in how many channels they are read; None: in their own.
    - `folder`: where a packaged data set's files are, if not where its package puts them.
    - `labels`: a table of the classes of a folder's pictures, see `ImageFolder`.

    **Raises:** `ValueError` for an unknown name, for a folder where the data set has none, and as
    `ImageFolder`.
    """
    pictures = Path(name).is_dir() or name.endswith(".zip")
    if labels is not None and not pictures:
        raise ValueError(
            f"--labels is for pictures, and {name} has labels of its own: leave it out"
        )
    if name == "fashion-mnist":
        return fashion_mnist("train", folder)
    packaged = _PACKAGED.get(name)
    if packaged is None and not Path(name).exists():
        raise ValueError(
            f"unknown data set {name!r}; choose fashion-mnist, {', '.join(_PACKAGED)}, a picture folder or "
            ".zip of one, .npy, .npz, or an idx file"
        )
    if folder is not None:
        raise ValueError(f"{name} is read from where it is: leave out --data-dir")
    if packaged is not None:
        return packaged()
    options: dict[str, Any] = {}
    if pictures:
        options = {"size": size, "channels": channels, "labels": labels}
    data = open_dataset(name, **options)
    if isinstance(data, ArrayDataset):
        raise ValueError(
            f"{name} holds examples of shape {data.shape}, which are no images; train on them in Python, "
            "by dx.training.fit"
        )
    return data
