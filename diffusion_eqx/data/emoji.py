"""Colour images: the bitmaps of Google's Noto Color Emoji, on white."""

import io
from pathlib import Path

import numpy as np

from diffusion_eqx.data.image_dataset import ImageDataset
from diffusion_eqx.data.packaged import find_packaged

_PACKAGE_PLACE = "usr/share/fonts/truetype/noto/NotoColorEmoji.ttf"


def emoji(size: int = 32, font: str | Path | None = None) -> ImageDataset:
    """All different pictures of the font: (N, size, size, 3) uint8 on white, in a fixed order, no labels.

    - `size`: pixels of a side.
    - `font`: the file NotoColorEmoji.ttf. By default it is taken from where Debian's package
      `fonts-noto-color-emoji` puts it.

    The pictures are free (SIL Open Font License).

    **Raises:** `FileNotFoundError` if the font is not found; the message names the places searched and the
    package to install. `ValueError` if the font has no colour bitmaps.
    """
    from fontTools.ttLib import TTFont  # A package of its own that only this data set needs.

    path = (
        Path(font)
        if font is not None
        else find_packaged(
            _PACKAGE_PLACE,
            what="the emoji font",
            package="fonts-noto-color-emoji",
            remedy="the file NotoColorEmoji.ttf",
        )
    )
    with TTFont(path) as loaded:
        if "CBDT" not in loaded:
            raise ValueError(f"{path} has no colour bitmaps (no CBDT table)")
        glyphs = loaded["CBDT"].strikeData[0]
        # Equal bitmaps serve several glyphs.
        bitmaps = {glyph.imageData for glyph in glyphs.values()}
    return ImageDataset(np.stack([_on_white(bitmap, size) for bitmap in sorted(bitmaps)]))


def _on_white(bitmap: bytes, size: int) -> np.ndarray:
    from PIL import Image

    picture = Image.open(io.BytesIO(bitmap)).convert("RGBA")
    side = max(picture.size)
    canvas = Image.new("RGBA", (side, side), "white")
    canvas.alpha_composite(picture, ((side - picture.width) // 2, (side - picture.height) // 2))
    return np.asarray(canvas.convert("RGB").resize((size, size), Image.Resampling.BOX))
