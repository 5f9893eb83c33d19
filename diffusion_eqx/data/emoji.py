"""Colour images: the bitmaps of Google's Noto Color Emoji, on white."""

import io
from pathlib import Path

import numpy as np
from fontTools.ttLib import TTFont
from PIL import Image

from diffusion_eqx.data.dataset import ImageDataset
from diffusion_eqx.data.packaged import find_packaged

_PACKAGE_PLACE = "usr/share/fonts/truetype/noto/NotoColorEmoji.ttf"


def emoji(size: int = 32, font: str | Path | None = None) -> ImageDataset:
    """All different pictures of the font, (N, size, size, 3) uint8, without labels; in a fixed order.

    `font`: the file NotoColorEmoji.ttf; by default the places where Debian's package
    `fonts-noto-color-emoji` puts it are searched. The pictures are free (SIL Open Font License).

    **Raises:** `FileNotFoundError` that says where was searched and how to get the file; `ValueError` if
    the font has no colour bitmaps.
    """
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
    picture = Image.open(io.BytesIO(bitmap)).convert("RGBA")
    side = max(picture.size)
    canvas = Image.new("RGBA", (side, side), "white")
    canvas.alpha_composite(picture, ((side - picture.width) // 2, (side - picture.height) // 2))
    return np.asarray(canvas.convert("RGB").resize((size, size), Image.Resampling.BOX))
