"""Images as picture files: one picture, a grid of many, an animation."""

import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from diffusion_eqx.data.pixels import check_finite, to_bytes

# Noise of standard deviation 1 stays below; bytes taken for floats, and latents, do not.
_GREATEST = 10.0
_HINT = "; to images without an axis of channels, add it: images[..., None]"
_ANIMATED = (".gif", ".png", ".webp")
_KEEP_ALPHA = (".png", ".webp", ".tif", ".tiff", ".avif", ".ico")


def image_grid(
    images: Any, columns: int | None = None, *, margin: int = 2, contrast: Any = 1.0
) -> np.ndarray:
    """Images side by side on white, row by row, as one picture: uint8 (height, width, channels).

    - `images`: (N, H, W, C) or a list of images (H, W, C). Channels are 1 (grey), 2 (grey, alpha), 3 (red,
      green, blue) or 4 (red, green, blue, alpha). Floats lie in [−1, 1]; those a little outside are
      clipped. Bytes 0 … 255 are taken as they are.
    - `columns`: images in a row. By default the grid is about square.
    - `margin`: white pixels around each image.
    - `contrast`: a factor by which float images are multiplied, one for all or one for each image.

    **Raises:** `ValueError` if there are no images; if their shapes differ or are none of these; if they
    are not finite; if they lie far outside [−1, 1]; or if another argument is out of its range.
    """
    pictures = _pictures(images, contrast)
    count, height, width, channels = pictures.shape
    columns = math.ceil(math.sqrt(count)) if columns is None else columns
    _check_whole(columns, "columns", 1)
    _check_whole(margin, "margin", 0)
    rows = -(-count // columns)
    canvas = np.full(
        (rows * (height + margin) + margin, columns * (width + margin) + margin, channels),
        255,
        np.uint8,
    )
    for number, picture in enumerate(pictures):
        top = margin + (number // columns) * (height + margin)
        left = margin + (number % columns) * (width + margin)
        canvas[top : top + height, left : left + width] = picture
    return canvas


def save_picture(
    path: str | Path,
    images: Any,
    *,
    columns: int | None = None,
    zoom: int = 1,
    contrast: Any = 1.0,
) -> None:
    """Write one image, or a grid of many, as a picture file; the file appears whole or not at all.

    - `path`: its ending chooses the format. Missing folders are made.
    - `images`: one image (H, W, C) or (H, W), or several as `image_grid` takes them.
    - `columns`, `contrast`: as of `image_grid`.
    - `zoom`: how often each pixel is repeated along both axes.

    Alpha is kept where the format has it (PNG, WebP, TIFF, AVIF), else composed on white.

    **Raises:** `ValueError` as `image_grid`; if Pillow cannot write files with the ending of `path`; if
    `zoom` is less than 1.
    """
    from PIL import Image  # Most who use this room write no picture.

    path = Path(path)
    Image.init()
    if Image.registered_extensions().get(path.suffix.lower()) not in Image.SAVE:
        raise ValueError(
            f"no picture format has the ending {path.suffix!r} of {path.name}; take .png"
        )
    pixels = _grid_or_single(images, columns, contrast)
    picture = _zoomed(pixels, zoom, keep_alpha=path.suffix.lower() in _KEEP_ALPHA)
    _write(path, lambda partial: picture.save(partial))


def save_animation(
    path: str | Path,
    frames: Any,
    *,
    seconds: float = 4.0,
    columns: int | None = None,
    zoom: int = 1,
    contrast: Any = 1.0,
) -> None:
    """Write frames as an animation that repeats; the file appears whole or not at all.

    - `path`: ends in .gif, .webp or .png. Missing folders are made.
    - `frames`: each one image, or several that make a grid, as `save_picture` takes them. The snapshots of
      `model.trajectory`, (frames, N, H, W, C), are such frames.
    - `seconds`: the time from the first to the last frame, which then stays for a second more.
    - `columns`, `zoom`, `contrast`: as of `save_picture`.

    **Raises:** `ValueError` if there are no frames, if their sizes differ, if `path` has another ending, if
    `seconds` is not positive, or as `save_picture`.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in _ANIMATED:
        raise ValueError(
            f"{path.name} must end in one of {', '.join(_ANIMATED)}, which hold animations"
        )
    if not 0.0 < seconds < float("inf"):
        raise ValueError(f"seconds must be a positive number; got {seconds}")
    if len(frames) == 0:
        raise ValueError("an animation needs at least one frame; got none")
    pixels = [_grid_or_single(frame, columns, contrast) for frame in frames]
    if len({frame.shape for frame in pixels}) > 1:
        shapes = sorted({frame.shape for frame in pixels})
        raise ValueError(f"all frames must have one shape; got {shapes}")
    pictures = [_zoomed(frame, zoom, keep_alpha=suffix != ".gif") for frame in pixels]
    durations = [max(1, round(1000 * seconds / len(pictures)))] * len(pictures)
    durations[-1] += 1000

    def save(partial: Path) -> None:
        pictures[0].save(
            partial, save_all=True, append_images=pictures[1:], duration=durations, loop=0
        )

    _write(path, save)


def _grid_or_single(images: Any, columns: int | None, contrast: Any) -> np.ndarray:
    """uint8 (height, width, channels) of one image or of a grid of several."""
    single = not isinstance(images, list | tuple) and np.ndim(images) in (2, 3)
    if not single:
        return image_grid(images, columns, contrast=contrast)
    image = np.asarray(images)
    return _pictures(image[None, ..., None] if image.ndim == 2 else image[None], contrast)[0]


def _pictures(images: Any, contrast: Any) -> np.ndarray:
    """Images as one uint8 array (N, H, W, C)."""
    if isinstance(images, list | tuple):
        each = [np.asarray(image) for image in images]
        if len({image.shape for image in each}) > 1:
            shapes = sorted({image.shape for image in each})
            raise ValueError(f"all images must have one shape; got {shapes}")
        if len({image.dtype for image in each}) > 1:
            raise ValueError("all images must be of one type, uint8 or floating point")
        images = np.stack(each) if each else np.zeros(0)
    images = np.asarray(images)
    if images.ndim != 4 or images.size == 0:
        raise ValueError(
            "images must be (N, height, width, channels), or a list of (height, width, channels), with at "
            f"least one image; got {images.shape}{_HINT if images.ndim == 3 else ''}"
        )
    if images.shape[-1] > 4:
        raise ValueError(
            "a picture has 1 channel (grey), 2 (grey, alpha), 3 (red, green, blue) or 4 (with alpha), the "
            f"last axis; got {images.shape[-1]} in {images.shape}: choose channels, or decode latents "
            f"first{_HINT}"
        )
    factors = np.asarray(contrast, np.float32)
    if factors.shape not in ((), (len(images),)) or not np.isfinite(factors).all():
        raise ValueError(
            f"contrast must be one finite number, or one for each of {len(images)} images; got "
            f"{contrast!r}"
        )
    if images.dtype == np.uint8:
        if (factors != 1.0).any():
            raise ValueError("contrast is for images of floats; these are bytes")
        return images
    if images.dtype.kind in "biucOSU":
        raise ValueError(f"images must be uint8 or floating point; got {images.dtype}")
    pixels = images.astype(np.float32)
    check_finite(pixels, "images")
    pixels = pixels * factors.reshape(-1, 1, 1, 1)
    low, high = float(pixels.min()), float(pixels.max())
    if max(-low, high) > _GREATEST:
        remedy = "scale them, images / 127.5 - 1" if low >= 0.0 else "scale them, or give contrast="
        raise ValueError(f"images must lie in [-1, 1]; these lie in [{low:g}, {high:g}]: {remedy}")
    return to_bytes(pixels)


def _zoomed(pixels: np.ndarray, zoom: int, *, keep_alpha: bool) -> Any:
    """The Pillow image of uint8 (H, W, C)."""
    from PIL import Image

    _check_whole(zoom, "zoom", 1)
    if not keep_alpha and pixels.shape[-1] in (2, 4):
        alpha = pixels[..., -1:] / np.float32(255.0)
        pixels = np.round(pixels[..., :-1] * alpha + 255.0 * (1.0 - alpha)).astype(np.uint8)
    pixels = pixels.repeat(zoom, axis=0).repeat(zoom, axis=1)
    return Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)


def _check_whole(value: Any, name: str, least: int) -> None:
    if not isinstance(value, int | np.integer) or value < least:
        raise ValueError(f"{name} must be a whole number of at least {least}; got {value!r}")


def _write(path: Path, save: Callable[[Path], None]) -> None:
    """Let `save` write a file beside `path`, then give it that name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.stem}.partial{path.suffix}")
    try:
        save(partial)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
