"""One record of somebody else's data set as an image and a label."""

import dataclasses
import io
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from diffusion_eqx.data.decode import Decoded, decode_file, decode_opened, luma, to_size

_WHITE = (255, 255, 255)


class Example(NamedTuple):
    """An image (height, width, channels), uint8 or float32 in [−1, 1], and its class or None."""

    image: np.ndarray
    label: int | None


@dataclasses.dataclass(frozen=True)
class RecordReader:
    """How a record becomes an example.

    - `image`, `label`: the names of the fields; `label` None: there are no labels.
    - `size`: (height, width) to which images are scaled and cut, or None where all have one size.
    - `channels`: 1, 3, or None for those of the image.
    """

    image: str
    label: str | None
    size: tuple[int, int] | None
    channels: int | None

    def __call__(self, record: Any, place: str) -> Example:
        """The example that a record holds.

        - `record`: a mapping with the named fields, a pair (image, label), or the image alone. The image is
          an array, a picture of Pillow, or the bytes of a picture file.
        - `place`: where it is, for messages.

        **Raises:** `ValueError`, which names the place, if it is none of these, or damaged.
        """
        try:
            image, label = self._fields(record)
            return Example(self._pixels(image), _label(label))
        # Pillow promises no list of errors for damaged pictures.
        except Exception as error:
            raise ValueError(f"{place}: {str(error).strip() or type(error).__name__}") from error

    def _fields(self, record: Any) -> tuple[Any, Any]:
        if record is None:
            raise ValueError("there is no record; filter before the examples are numbered")
        if isinstance(record, Mapping):
            if self.image not in record:
                raise ValueError(
                    f"the record has no field {self.image!r}, but {', '.join(map(repr, record))}: give the "
                    "name of the image's field as image="
                )
            label = record.get(self.label) if self.label is not None else None
            return record[self.image], label
        if isinstance(record, tuple):
            if len(record) not in (1, 2):
                raise ValueError(f"a record is (image, label); got {len(record)} parts")
            labelled = len(record) == 2 and self.label is not None
            return record[0], record[1] if labelled else None
        return record, None

    def _pixels(self, image: Any) -> np.ndarray:
        if (
            isinstance(image, Mapping) and image.get("bytes") is not None
        ):  # Hugging Face, not decoded.
            image = image["bytes"]
        if isinstance(image, bytes):
            if not image:
                raise ValueError("the picture is empty")
            return self._of_picture(
                decode_file(io.BytesIO(image), self.size, background=_WHITE, profiles=True)
            )
        if hasattr(image, "getexif"):
            return self._of_picture(
                decode_opened(image, self.size, background=_WHITE, profiles=True)
            )
        return self._of_array(np.asarray(image))

    def _of_picture(self, found: Decoded) -> np.ndarray:
        return _with_channels(found.pixels, self.channels)

    def _of_array(self, pixels: np.ndarray) -> np.ndarray:
        if pixels.ndim == 2:
            pixels = pixels[..., None]
        if pixels.ndim != 3 or pixels.size == 0:
            raise ValueError(
                "an image is an array (height, width) or (height, width, channels), a picture or the bytes "
                f"of one; got {type(pixels).__name__ if pixels.dtype == object else pixels.shape}"
            )
        if pixels.dtype.kind in "iu" and pixels.dtype != np.uint8:
            low, high = int(pixels.min()), int(pixels.max())
            if low < 0 or high > 255:
                raise ValueError(f"whole numbers of an image lie in 0 … 255; got [{low}, {high}]")
            pixels = pixels.astype(np.uint8)
        if pixels.dtype == np.uint8:
            if self.size is not None and pixels.shape[:2] != self.size:
                pixels = to_size(pixels.astype(np.float32), self.size)
            return _with_channels(pixels, self.channels)
        return self._of_floats(pixels)

    def _of_floats(self, pixels: np.ndarray) -> np.ndarray:
        if pixels.dtype.kind != "f":
            raise ValueError(f"pixels must be uint8 or floating point; got {pixels.dtype}")
        pixels = pixels.astype(np.float32)
        if not np.isfinite(pixels).all():
            raise ValueError("the image holds NaN or infinity")
        low, high = float(pixels.min()), float(pixels.max())
        if low < -1.0 or high > 1.0:
            raise ValueError(
                f"floating-point pixels must lie in [-1, 1]; these lie in [{low:g}, {high:g}]: scale them, "
                "such as by image / 127.5 - 1"
            )
        if self.size not in (None, pixels.shape[:2]):
            raise ValueError(
                f"only pictures and uint8 arrays are scaled to size={self.size}; this is {pixels.dtype} of "
                f"shape {pixels.shape}"
            )
        if self.channels not in (None, pixels.shape[-1]):
            raise ValueError(f"the image has {pixels.shape[-1]} channels, and not {self.channels}")
        return pixels


def _label(label: Any) -> int | None:
    if label is None:
        return None
    number = np.asarray(label)
    if number.shape not in ((), (1,)) or not np.issubdtype(number.dtype, np.integer):
        raise ValueError(
            f"a label is one whole number; got {label!r}: number the classes, or read no labels by "
            "label=None"
        )
    return int(number.reshape(()))


def _with_channels(pixels: np.ndarray, channels: int | None) -> np.ndarray:
    found = pixels.shape[-1]
    if channels in (None, found):
        return pixels
    if (channels, found) == (1, 3):
        return luma(pixels)
    if (channels, found) == (3, 1):
        return np.repeat(pixels, 3, axis=-1)
    raise ValueError(f"the image has {found} channels, and not {channels}")
