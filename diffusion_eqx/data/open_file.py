"""A data set from a file or a folder, whatever it is."""

import contextlib
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from diffusion_eqx.data.array_dataset import ArrayDataset
from diffusion_eqx.data.idx import read_idx
from diffusion_eqx.data.image_dataset import ImageDataset
from diffusion_eqx.data.image_folder import ImageFolder

# Under which names an archive of arrays may hold examples and labels.
_EXAMPLES = ("images", "examples", "x", "x_train", "arr_0")
_LABELS = ("labels", "y", "y_train", "arr_1")


def open_dataset(
    path: str | Path, *, size: int | tuple[int, int] | None = None, **folder_options: Any
) -> ImageDataset | ArrayDataset | ImageFolder:
    """The data set that a path holds.

    | path | data set |
    |---|---|
    | a folder of pictures, or a `.zip` of one | `ImageFolder` at `size` |
    | `.npy` | images (N, H, W) or (N, H, W, C), or other examples; read from disk as they are used |
    | `.npz` | `images` and `labels`, or names as other libraries have them; `class_names` |
    | idx, such as `train-images-idx3-ubyte.gz` | images, with the labels of the file beside it |

    Arrays of uint8, and floats of at least three axes, are images; floats of two axes are other examples.

    - `size`: pixels of a side, or (height, width), to which pictures are scaled.
    - `folder_options`: of `ImageFolder`.

    **Raises:** `FileNotFoundError`; `ValueError` if the file is none of these, is damaged, or holds
    something else, if pictures have no `size`, or as the data set itself.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"there is no file or folder {path}")
    if path.is_dir() or path.suffix == ".zip":
        if size is None:
            raise ValueError(
                f"{path} holds pictures: give the size to which they are scaled, as size=32"
            )
        with _folder(path) as folder:
            try:
                return ImageFolder(folder, size=size, **folder_options)
            except ValueError as error:
                # Where an archive was unpacked is nobody's affair.
                raise ValueError(str(error).replace(str(folder), str(path))) from error
    if size is not None or folder_options:
        raise ValueError(f"{path} holds arrays, which are taken as they are: leave out the size")
    if path.suffix == ".npy":
        return _dataset(_loaded(path), None, ())
    if path.suffix == ".npz":
        return _archive(path)
    if "idx" in path.name:
        return _idx(path)
    raise ValueError(
        f"{path} is none of what is read: a folder or .zip of pictures, .npy, .npz, or an idx file"
    )


@contextlib.contextmanager
def _folder(path: Path) -> Iterator[Path]:
    """A folder of pictures; an archive of one is unpacked for as long as it is read."""
    if path.is_dir():
        yield path
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / path.stem
        try:
            with zipfile.ZipFile(path) as archive:
                archive.extractall(folder)
        except (zipfile.BadZipFile, EOFError, OSError) as error:
            raise ValueError(f"{path} cannot be unpacked: {error}") from error
        yield _within(folder)


def _within(folder: Path) -> Path:
    """The folder itself, or the one folder that an archive wraps its contents in."""
    entries = [entry for entry in folder.iterdir() if not entry.name.startswith((".", "__MACOSX"))]
    only = entries[0] if len(entries) == 1 and entries[0].is_dir() else None
    wraps = only is not None and any(entry.is_dir() for entry in only.iterdir())
    return only if only is not None and wraps else folder


def _loaded(path: Path) -> Any:
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError, OSError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} cannot be read as arrays of NumPy: {error}") from error


def _archive(path: Path) -> ImageDataset | ArrayDataset:
    with _loaded(path) as arrays:
        names = list(arrays)
        examples = next((name for name in _EXAMPLES if name in names), None)
        labels = next((name for name in _LABELS if name in names), None)
        if examples is None:
            raise ValueError(
                f"{path} holds {', '.join(names)}, and none of {', '.join(_EXAMPLES)}; save the examples "
                "as np.savez(path, images=…, labels=…)"
            )
        class_names = (
            [str(name) for name in arrays["class_names"]] if "class_names" in names else ()
        )
        found = None if labels is None else arrays[labels].reshape(-1)
        return _dataset(arrays[examples], found, class_names)


def _idx(path: Path) -> ImageDataset | ArrayDataset:
    beside = path.with_name(path.name.replace("images-idx3", "labels-idx1"))
    labels = read_idx(beside).astype(np.int32) if beside != path and beside.exists() else None
    return _dataset(read_idx(path), labels, ())


def _dataset(examples: Any, labels: Any, class_names: Any) -> ImageDataset | ArrayDataset:
    if examples.dtype != np.uint8 and examples.ndim < 3:
        return ArrayDataset(examples, labels, class_names)
    grey = examples[..., None] if examples.ndim == 3 else examples
    return ImageDataset(grey, labels, class_names)
