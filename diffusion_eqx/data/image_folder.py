"""A folder of pictures as a data set."""

import contextlib
import dataclasses
import functools
import hashlib
import logging
import os
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal

import numpy as np

from diffusion_eqx.data.base import Batches
from diffusion_eqx.data.batches import shuffled_batches
from diffusion_eqx.data.decode import Decoded, NotAPicture, decode_picture, luma
from diffusion_eqx.data.labels import describe_classes
from diffusion_eqx.data.labels_file import read_labels
from diffusion_eqx.data.scan import Scan, is_picture_name, scan_folder

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class FolderReport:
    """What was done to the pictures of a folder, in numbers of files; `str` of it is one line.

    - `turned`: lay on their side or were mirrored, as their EXIF data says.
    - `composed`: have transparent parts, composed on the background.
    - `profile`: were converted to sRGB from the colour profile they hold.
    - `profile_ignored`: hold a profile that does not fit them.
    - `first_frame`: have several frames, of which the first was taken.
    - `reduced`: have 16 bits for each channel, of which 8 are kept.
    - `enlarged`: are smaller than the wanted size.
    - `duplicates`: have the same pixels, at the wanted size, as a picture before them.
    - `plain`: have one colour only.
    - `lone`: are the only picture of their class.
    - `left_out`: hidden files, files of the operating system, and files that are no pictures.
    - `broken`: path and reason of each broken file that was skipped.
    """

    turned: int = 0
    composed: int = 0
    profile: int = 0
    profile_ignored: int = 0
    first_frame: int = 0
    reduced: int = 0
    enlarged: int = 0
    duplicates: int = 0
    plain: int = 0
    lone: int = 0
    left_out: int = 0
    broken: tuple[str, ...] = ()

    def __str__(self) -> str:
        said = [
            (self.turned, "turned upright by EXIF"),
            (self.composed, "with transparency, composed on the background"),
            (self.profile, "converted from a colour profile to sRGB"),
            (self.profile_ignored, "with a colour profile that does not fit"),
            (self.first_frame, "with several frames, the first taken"),
            (self.reduced, "reduced from 16 bits to 8"),
            (self.enlarged, "enlarged"),
            (self.duplicates, "equal to another picture"),
            (self.plain, "of one colour only"),
            (self.lone, "alone in their class"),
            (self.left_out, "other files left out"),
            (len(self.broken), "broken files left out"),
        ]
        return "; ".join(f"{count} {what}" for count, what in said if count) or "nothing to report"


class ImageFolder:
    """The pictures below a folder, at one size, in memory as uint8.

    Folders directly in `path` are the classes, sorted by the bytes of their names; pictures that lie deeper
    belong to the class folder above them. Pictures directly in `path` have no labels.

    Each picture is turned as its EXIF data says, converted to sRGB from the colour profile it holds, and
    composed on `background` where it is transparent. Then Pillow's anti-aliased bicubic filter scales it to
    cover `size`, and its middle is cut out. Grey, palette, CMYK and 16-bit pictures are read as viewers
    show them; 16 bits become 8. A file is a picture by its content, whatever its name.

    `report` counts what was done, and one line of log says so. `files` holds the path of each picture,
    relative to `path`.

    - `path`: the folder.
    - `size`: pixels of a side, or (height, width).
    - `channels`: 1 for grey, 3 for colour, None for 1 if all pictures are grey, else 3.
    - `background`: a colour as Pillow reads it, such as "white" or "#204060".
    - `labelled`: whether folders are classes. None: if there are any. False takes all pictures below
      `path`, without labels.
    - `labels`: a CSV file with the path of each picture, below `path`, and the name of its class; folders
      are no classes then.
    - `broken`: "refuse" raises an error that names all broken files; "skip" leaves them out.
    - `profiles`: whether colour profiles are applied.

    **Raises:** `FileNotFoundError` or `NotADirectoryError` if `path` is no folder. `ValueError` if it holds
    no pictures, broken ones, a class without pictures, or pictures beside class folders; if an argument is
    out of its range; if the pictures need more memory than the machine has.
    """

    images: np.ndarray
    labels: np.ndarray | None
    class_names: tuple[str, ...]
    files: tuple[str, ...]
    report: FolderReport

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        size: int | tuple[int, int],
        channels: Literal[1, 3] | None = None,
        background: str = "white",
        labelled: bool | None = None,
        labels: str | os.PathLike[str] | None = None,
        broken: Literal["refuse", "skip"] = "refuse",
        profiles: bool = True,
    ):
        from PIL import ImageColor

        if channels not in (None, 1, 3):
            raise ValueError(f"channels must be 1, 3 or None; got {channels!r}")
        if broken not in ("refuse", "skip"):
            raise ValueError(f'broken must be "refuse" or "skip"; got {broken!r}')
        height, width = checked_size(size)
        red, green, blue = ImageColor.getrgb(background)[:3]
        self._root = root = Path(path)
        scan = scan_folder(root, labelled=labelled if labels is None else False)
        if labels is not None:
            table = Path(labels)
            scan.files = [file for file in scan.files if file != table]
            scan.classes, scan.class_names = read_labels(table, root, scan.files)
        _check_memory(len(scan.files), height * width * (channels or 3))
        decode = functools.partial(
            decode_picture,
            size=(height, width),
            background=(red, green, blue),
            profiles=profiles,
        )
        images = np.zeros((len(scan.files), height, width, channels or 3), np.uint8)
        outcomes = _decode_all(scan.files, decode, images)
        faults = scan.broken + [
            (file, found)
            for file, found in zip(scan.files, outcomes, strict=True)
            if isinstance(found, str)
        ]
        texts = tuple(
            f"{file.relative_to(root)}: {reason}"
            for file, reason in sorted(faults, key=lambda fault: os.fsencode(fault[0]))
        )
        if texts and broken == "refuse":
            raise ValueError(
                f"{len(texts)} of the files in {root} are broken; mend or remove them, or leave them out "
                'by broken="skip":\n  ' + "\n  ".join(texts)
            )
        kept = np.array([isinstance(found, frozenset) for found in outcomes], bool)
        if not kept.any():
            raise ValueError(f"{root} holds no pictures")
        images = images if kept.all() else images[kept]
        if channels is None and _all_grey(images):
            images = images[..., :1].copy()
        self.images = images
        self.labels, self.class_names = _labels(scan, kept, root)
        self.files = tuple(
            str(file.relative_to(root)) for file, keep in zip(scan.files, kept, strict=True) if keep
        )
        others = sum(found is None for found in outcomes)
        done = [found for found in outcomes if isinstance(found, frozenset)]
        self.report = _report(self.images, self.labels, done, scan.hidden + others, texts)
        if str(self.report) != str(FolderReport()):
            _log.warning("%s: %s", root, self.report)

    def __len__(self) -> int:
        return len(self.images)

    def __repr__(self) -> str:
        return (
            f"ImageFolder({str(self._root)!r}, {len(self)} images of shape {self.shape}, "
            f"{describe_classes(self.labels, self.class_names)})"
        )

    @property
    def shape(self) -> tuple[int, int, int]:
        """(height, width, channels) of one image."""
        _, height, width, channels = self.images.shape
        return height, width, channels

    @property
    def num_classes(self) -> int | None:
        """The number of class folders, or None without labels."""
        return len(self.class_names) or None

    def batches(self, batch_size: int, *, seed: int) -> Batches:
        """An endless, shuffled stream of batches. Batch i depends on `seed` and i only.

        Each epoch has an order of its own.

        **Raises:** `ValueError` if `batch_size` or `seed` is not a whole number in its range.
        """
        return shuffled_batches(self.images, self.labels, batch_size, seed)


def checked_size(size: int | tuple[int, int]) -> tuple[int, int]:
    """(height, width) of a size as users give it.

    **Raises:** `ValueError` unless it is one or two whole numbers from 1 on.
    """
    sides = size if isinstance(size, tuple | list) else (size, size)
    if len(sides) != 2 or not all(isinstance(s, int | np.integer) and s >= 1 for s in sides):
        raise ValueError(
            f"size must be pixels of a side, or (height, width), from 1 on; got {size!r}"
        )
    height, width = sides
    return int(height), int(width)


def _check_memory(count: int, each: int) -> None:
    """Refuse what would not fit, before hours of reading.

    **Raises:** `ValueError`.
    """
    needed = count * each
    try:
        present = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # Not known on this system.
        return
    if needed > present:
        raise ValueError(
            f"{count} pictures of this size take {needed / 1e9:.0f} GB of memory; the machine has "
            f"{present / 1e9:.0f}: take a smaller size, or parts of the folder"
        )


def _decode_all(files, decode, images: np.ndarray) -> list[frozenset[str] | str | None]:
    """Fill `images`; for each file what was done to it, or why it is broken, or None for no picture."""

    def one(number: int) -> frozenset[str] | str | None:
        file = files[number]
        try:
            found: Decoded = decode(file)
        except NotAPicture as reason:
            return str(reason) if is_picture_name(file) else None
        # Pillow promises no list of errors for damaged files, and each is to be named.
        except Exception as reason:
            return str(reason).strip() or type(reason).__name__
        pixels = found.pixels
        images[number] = luma(pixels) if (images.shape[-1], pixels.shape[-1]) == (1, 3) else pixels
        return found.done

    with _strict_pillow(), ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(one, range(len(files))))


@contextlib.contextmanager
def _strict_pillow() -> Iterator[None]:
    """No picture is completed with grey where its file ends, and no warning stands for a report."""
    from PIL import ImageFile

    before = ImageFile.LOAD_TRUNCATED_IMAGES
    ImageFile.LOAD_TRUNCATED_IMAGES = False
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES = before


def _all_grey(images: np.ndarray) -> bool:
    first = images[..., :1]
    return all((image == image[..., :1]).all() for image in images) if len(first) else False


def _labels(scan: Scan, kept: np.ndarray, root: Path) -> tuple[np.ndarray | None, tuple[str, ...]]:
    if not scan.class_names:
        return None, ()
    labels = np.array(scan.classes, np.int32)[kept]
    counts = np.bincount(labels, minlength=len(scan.class_names))
    empty = [name for name, count in zip(scan.class_names, counts, strict=True) if count == 0]
    if empty:
        raise ValueError(
            f"these class folders of {root} hold no pictures: {', '.join(empty)}; fill or remove them"
        )
    return labels, scan.class_names


def _report(
    images: np.ndarray,
    labels: np.ndarray | None,
    done: list[frozenset[str]],
    left_out: int,
    broken: tuple[str, ...],
) -> FolderReport:
    def count(what: str) -> int:
        return sum(what in each for each in done)

    digests = {hashlib.blake2b(image.tobytes(), digest_size=16).digest() for image in images}
    return FolderReport(
        turned=count("turned"),
        composed=count("composed"),
        profile=count("profile"),
        profile_ignored=count("profile ignored"),
        first_frame=count("first frame"),
        reduced=count("16 bits"),
        enlarged=count("enlarged"),
        duplicates=len(images) - len(digests),
        plain=sum(int((image == image[0, 0]).all()) for image in images),
        lone=0 if labels is None else int((np.bincount(labels) == 1).sum()),
        left_out=left_out,
        broken=broken,
    )
