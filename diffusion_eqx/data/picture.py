"""Images as picture files."""

import os
from pathlib import Path

import numpy as np
from PIL import Image

from diffusion_eqx._typing import Images
from diffusion_eqx.data.dataset import to_bytes


def image_grid(images: Images | np.ndarray, columns: int, *, margin: int = 2) -> np.ndarray:
    """Images (N, H, W, C) in [−1, 1] side by side on white, row by row. Returns uint8 (H', W', C)."""
    pictures = to_bytes(images)
    count, height, width, channels = pictures.shape
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


def save_picture(path: str | Path, pixels: np.ndarray, *, zoom: int = 1) -> None:
    """Write uint8 (H, W, 1 or 3) as a picture file, atomically; `zoom` repeats pixels."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
    if zoom > 1:
        picture = picture.resize(
            (picture.width * zoom, picture.height * zoom), Image.Resampling.NEAREST
        )
    partial = path.with_name(f".{path.name}.partial{path.suffix}")
    picture.save(partial)
    os.replace(partial, path)


def save_animation(path: str | Path, frames: list[np.ndarray], *, seconds: float = 4.0) -> None:
    """Write uint8 (H, W, 1 or 3) frames as an animated GIF of so many seconds, atomically.

    The last frame stays for a second more.

    **Raises:** `ValueError` if there are no frames.
    """
    if not frames:
        raise ValueError("an animation needs at least one frame")
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    pictures = [Image.fromarray(f[..., 0] if f.shape[-1] == 1 else f) for f in frames]
    durations = [int(1000 * seconds / len(frames))] * len(frames)
    durations[-1] += 1000
    partial = path.with_name(f".{path.name}.partial.gif")
    pictures[0].save(partial, save_all=True, append_images=pictures[1:], duration=durations, loop=0)
    os.replace(partial, path)
