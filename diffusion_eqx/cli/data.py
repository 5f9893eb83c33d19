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

_IN_MEMORY = {"digits": digits, "emoji": emoji}
# The data sets that packages bring, by name.
PACKAGED = ("fashion-mnist", *_IN_MEMORY)


def check_picture_options(name: str, **given: Any) -> None:
    """Refuse options of picture folders where the data set is another one.

    - `name`: of the data set; one that there is not is refused by `load_dataset`.
    - `given`: options by their names, None where one was not given.

    **Raises:** `ValueError`.
    """
    wrong = [f"--{option}" for option, value in given.items() if value is not None]
    if wrong and (Path(name).exists() or name in PACKAGED) and not _holds_pictures(name):
        raise ValueError(
            f"{wrong[0]} is for pictures, a folder or a .zip of them, and {name} has images and labels of "
            "its own: leave it out"
        )


def _holds_pictures(name: str) -> bool:
    return Path(name).is_dir() or name.endswith(".zip")


def load_dataset(
    name: str,
    size: tuple[int, int] | int,
    channels: int | None = None,
    folder: Path | None = None,
    labels: Path | None = None,
    broken: str | None = None,
) -> ImagesInMemory:
    """The data set of that name, or of that folder or file.

    - `size`: (height, width) at which a folder's pictures are read.
    - `channels`: in how many channels they are read; None: in their own.
    - `folder`: where a packaged data set's files are, if not where its package puts them.
    - `labels`, `broken`: of a folder's pictures, see `ImageFolder`; None for its defaults.

    **Raises:** `ValueError` for an unknown name, for a folder where the data set has none, and as
    `ImageFolder`.
    """
    if broken not in (None, "refuse", "skip"):
        raise ValueError(f"--broken is refuse or skip; got {broken!r}")
    if name == "fashion-mnist":
        return fashion_mnist("train", folder)
    packaged = _IN_MEMORY.get(name)
    if packaged is None and not Path(name).exists():
        raise ValueError(
            f"unknown data set {name!r}, and no file or folder of that name is there; choose "
            f"{', '.join(PACKAGED)}, a picture folder or .zip of one, .npy, .npz, or an idx file"
        )
    if folder is not None:
        raise ValueError(f"{name} is read from where it is: leave out --data-dir")
    if packaged is not None:
        return packaged()
    options: dict[str, Any] = {}
    if _holds_pictures(name):
        options = {
            "size": size,
            "channels": channels,
            "labels": labels,
            "broken": broken or "refuse",
        }
    try:
        data = open_dataset(name, **options)
    except ValueError as error:
        raise ValueError(str(error).replace('broken="skip"', "--broken skip")) from error
    if isinstance(data, ArrayDataset):
        raise ValueError(
            f"{name} holds examples of shape {data.shape}, which are no images; train on them in Python, "
            "by dx.training.fit"
        )
    return data
