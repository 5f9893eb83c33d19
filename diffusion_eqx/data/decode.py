"""One picture file as pixels of a wanted size, as the best viewer would show it.

The steps, in this order: take the first frame; apply EXIF's orientation; convert an embedded colour profile
to sRGB; compose transparent parts on a background; scale the picture to cover the wanted size, and cut out
its middle. Colours are rounded to 8 bits once, at the end. The filter is Pillow's anti-aliased bicubic one,
on sRGB values. Clean-fid (Parmar et al. 2022) uses it too, so that a model is judged by pictures made like
those it learnt from.
"""

import functools
import io
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

# Formats that Pillow reads from the content alone. PostScript is left out: reading it runs a program.
# HEIF and JXL are read by plug-ins of Pillow, if these are installed and registered.
_FORMATS = (
    "PNG",
    "JPEG",
    "MPO",
    "WEBP",
    "GIF",
    "BMP",
    "DIB",
    "TIFF",
    "AVIF",
    "PPM",
    "JPEG2000",
    "ICO",
)
_FORMATS += ("QOI", "SGI", "HEIF", "JXL")
# The luma of ITU-R BT.601, as Pillow's own conversion to grey has it.
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)
_16_BITS = ("I;16", "I;16B", "I;16L", "I;16N", "I")


class Decoded(NamedTuple):
    """A picture as `pixels` (height, width, 1 or 3) uint8, and what was done to it.

    `done` has some of: turned (EXIF), first frame (of several), profile (applied), profile ignored (it does
    not fit), composed (alpha on the background), 16 bits (reduced to 8), enlarged.
    """

    pixels: np.ndarray
    done: frozenset[str]


class NotAPicture(ValueError):
    """The content of a file is that of no picture format."""


def decode_picture(
    path: Path, size: tuple[int, int], *, background: tuple[int, int, int], profiles: bool
) -> Decoded:
    """Read one picture at `size` = (height, width).

    - `background`: (red, green, blue), 0 … 255, on which transparent parts are composed.
    - `profiles`: whether an embedded colour profile is applied.

    **Raises:** `NotAPicture`; whatever Pillow raises for a damaged file; `ValueError` if the range of the
    numbers is unknown, or the picture is too large to be one.
    """
    if path.stat().st_size == 0:
        raise NotAPicture("the file is empty")
    # A file that Pillow opens by its name is mapped into memory, and a TIFF that lies on its side is then
    # read with height and width exchanged (seen in Pillow 13.0).
    with path.open("rb") as file:
        return decode_file(file, size, background=background, profiles=profiles)


def decode_file(
    file: io.BufferedIOBase,
    size: tuple[int, int] | None,
    *,
    background: tuple[int, int, int],
    profiles: bool,
) -> Decoded:
    """Read the picture in an open file; arguments and errors as of `decode_picture`.

    `size`: None leaves the picture at its own.
    """
    from PIL import Image

    # Plug-ins are loaded late, and Pillow knows no name of one that is not loaded.
    Image.init()
    formats = [name for name in _FORMATS if name in Image.OPEN]
    with _opened(file, formats) as picture:
        return decode_opened(picture, size, background=background, profiles=profiles)


def decode_opened(
    picture: Any, size: tuple[int, int] | None, *, background: tuple[int, int, int], profiles: bool
) -> Decoded:
    """The pixels of a picture of Pillow, whose content need not be read yet; otherwise as `decode_file`."""
    from PIL import ExifTags, Image, ImageOps

    done: set[str] = set()
    limit = Image.MAX_IMAGE_PIXELS
    if limit is not None and picture.width * picture.height > limit:
        raise ValueError(
            f"{picture.width}x{picture.height} pixels, more than PIL.Image.MAX_IMAGE_PIXELS = {limit}"
        )
    if getattr(picture, "is_animated", False):
        done.add("first frame")
    # Only a picture that was not made in memory has tiles.
    if any(";16" in str(_raw_mode(tile)) for tile in getattr(picture, "tile", ())):
        done.add("16 bits")
    if picture.getexif().get(ExifTags.Base.Orientation, 1) in range(2, 9):
        done.add("turned")
    profile = picture.info.get("icc_profile") if profiles else None
    upright = ImageOps.exif_transpose(picture)
    colours = _composed(_colours(upright, profile, done), background, done)
    if size is not None and (colours.shape[0] < size[0] or colours.shape[1] < size[1]):
        done.add("enlarged")
    return Decoded(to_size(colours, size or colours.shape[:2]), frozenset(done))


def _opened(file: Any, formats: list[str]) -> Any:
    """The picture in an open file, of which only the header has been read."""
    from PIL import Image, UnidentifiedImageError

    try:
        return Image.open(file, formats=formats)
    except UnidentifiedImageError:
        raise NotAPicture("no picture format that Pillow reads") from None


def _raw_mode(tile: Any) -> Any:
    """How a part of a picture is stored, such as RGB;16B, of which Pillow keeps 8 bits."""
    arguments = tile[3]
    return arguments[0] if isinstance(arguments, tuple) and arguments else arguments


def luma(pixels: np.ndarray) -> np.ndarray:
    """Grey (…, 1) uint8 of (…, 3) uint8: 0.299·red + 0.587·green + 0.114·blue."""
    return np.round(pixels @ _LUMA).astype(np.uint8)[..., None]


def _colours(picture: Any, profile: bytes | None, done: set[str]) -> np.ndarray:
    """Floats 0 … 255 (height, width, channels), 1 or 3 of them, or 2 or 4 with alpha."""
    mode = picture.mode
    if mode in _16_BITS:
        return _from_16_bits(picture, done)
    if mode == "F":
        numbers = np.asarray(picture)
        raise ValueError(
            f"floating-point numbers in [{numbers.min():g}, {numbers.max():g}], whose range is not known; "
            "write the picture with 8 or 16 bits"
        )
    transparent = "transparency" in picture.info
    if mode in ("P", "PA"):
        picture = picture.convert("RGBA" if transparent or mode == "PA" else "RGB")
    elif mode == "1":
        picture = picture.convert("LA" if transparent else "L")
    elif mode == "La" or (mode == "L" and transparent):
        picture = picture.convert("LA")
    elif mode == "RGBa" or (mode == "RGB" and transparent):
        picture = picture.convert("RGBA")
    if profile is not None or picture.mode == "LAB":
        picture = _to_srgb(picture, profile, done)
    if picture.mode not in ("L", "LA", "RGB", "RGBA"):
        # CMYK (which Pillow has already turned the right way round), YCbCr, HSV, RGBX.
        picture = picture.convert("RGB")
    colours = np.asarray(picture, np.float32)
    return colours[..., None] if colours.ndim == 2 else colours


def _from_16_bits(picture: Any, done: set[str]) -> np.ndarray:
    numbers = np.asarray(picture).astype(np.float32)
    low, high = float(numbers.min()), float(numbers.max())
    if low < 0.0 or high > 65535.0:
        raise ValueError(
            f"whole numbers in [{low:g}, {high:g}], more than 16 bits, whose range is not known; write the "
            "picture with 8 or 16 bits"
        )
    done.add("16 bits")
    grey = numbers * np.float32(255.0 / 65535.0)
    transparent = picture.info.get("transparency")
    if transparent is None:
        return grey[..., None]
    return np.stack([grey, np.where(numbers == transparent, 0.0, 255.0)], axis=-1)


def _to_srgb(picture: Any, profile: bytes | None, done: set[str]) -> Any:
    """The picture in sRGB, by its profile; unchanged if the profile does not fit it."""
    from PIL import Image, ImageCms

    mode = picture.mode
    if mode == "LA":
        grey, alpha = picture.split()
        return Image.merge("LA", (_to_srgb(grey, profile, done).convert("L"), alpha))
    try:
        transform = _transform(profile, mode)
        if transform is not None:
            picture = ImageCms.applyTransform(picture, transform)
            done.add("profile")
    except (ImageCms.PyCMSError, OSError, ValueError):
        # Such as a profile of colours in a grey picture: viewers pass over it too.
        done.add("profile ignored")
    # Neutral colours come out neutral but for rounding.
    return picture.convert("L") if mode == "L" else picture


@functools.lru_cache(maxsize=64)
def _transform(profile: bytes | None, mode: str) -> Any:
    """Little CMS's transform from a profile to sRGB, or None if the profile is sRGB already."""
    from PIL import ImageCms

    if profile is None:
        source = ImageCms.createProfile("LAB")
    else:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if "srgb" in ImageCms.getProfileDescription(source).lower():
            return None
    target = ImageCms.createProfile("sRGB")
    return ImageCms.buildTransform(source, target, mode, "RGBA" if mode == "RGBA" else "RGB")


def _composed(colours: np.ndarray, background: tuple[int, int, int], done: set[str]) -> np.ndarray:
    """Colours over the background; a grey picture stays grey if the background is."""
    channels = colours.shape[-1]
    if channels in (1, 3):
        return colours
    colours, alpha = colours[..., :-1], colours[..., -1:] / np.float32(255.0)
    if (alpha == 1.0).all():
        return colours
    done.add("composed")
    behind = np.array(background, np.float32)
    if channels == 2 and len(set(background)) == 1:
        behind = behind[:1]
    return colours * alpha + behind * (1.0 - alpha)


def to_size(colours: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Pixels 0 … 255 scaled to cover `size`, the middle cut out: uint8 (height, width, channels)."""
    from PIL import Image

    height, width = colours.shape[:2]
    wanted_height, wanted_width = size
    if (height, width) != size:
        # The part of the picture that will be seen, in its own pixels.
        scale = min(height / wanted_height, width / wanted_width)
        left, top = (width - scale * wanted_width) / 2, (height - scale * wanted_height) / 2
        box = (max(left, 0.0), max(top, 0.0), min(width - left, width), min(height - top, height))
        planes = [
            Image.fromarray(np.ascontiguousarray(colours[..., channel])).resize(
                (wanted_width, wanted_height), Image.Resampling.BICUBIC, box=box
            )
            for channel in range(colours.shape[-1])
        ]
        colours = np.stack([np.asarray(plane) for plane in planes], axis=-1)
    return np.clip(np.round(colours), 0, 255).astype(np.uint8)
