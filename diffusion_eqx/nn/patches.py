"""Images as sequences of patches, and where each patch lies."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, DTypeLike, Float

from diffusion_eqx._typing import Images

_MAX_PERIOD = 10_000.0


def patchify(x: Images, size: int) -> Float[Array, "batch rows columns features"]:
    """Cut images into squares: (B, H, W, C) to (B, H/size, W/size, size·size·C).

    A patch's features are its pixels row by row, the channels of each pixel together.

    **Raises:** `ValueError` if the patches do not tile the image.
    """
    batch, height, width, channels = x.shape
    if height % size or width % size:
        raise ValueError(
            f"an image of {height}x{width} pixels cannot be cut into patches of {size}x{size}: choose a "
            "patch_size that divides both sides"
        )
    cut = x.reshape(batch, height // size, size, width // size, size, channels)
    return cut.transpose(0, 1, 3, 2, 4, 5).reshape(batch, height // size, width // size, -1)


def unpatchify(patches: Float[Array, "batch rows columns features"], size: int) -> Images:
    """Put patches together again, (B, rows, columns, size·size·C) to (B, H, W, C).

    The inverse of `patchify`.
    """
    batch, rows, columns, _ = patches.shape
    cut = patches.reshape(batch, rows, columns, size, size, -1)
    return cut.transpose(0, 1, 3, 2, 4, 5).reshape(batch, rows * size, columns * size, -1)


def position_features(
    rows: int, columns: int, dim: int, dtype: DTypeLike = jnp.float32
) -> Float[Array, "{rows} {columns} {dim}"]:
    """Fixed features of the places of a grid (Peebles & Xie 2023, section 3.2; Vaswani et al. 2017, 3.5).

    The first half of the features is for the column, the second half for the row. Each half is sin and then
    cos of place · 10000^(−i/(dim/4)), i = 0 … dim/4 − 1.

    - `rows`, `columns`: the grid
    - `dim`: number of features, a multiple of 4
    - `dtype`: of the result

    **Raises:** `ValueError` if `dim` is no multiple of 4.
    """
    if dim % 4:
        raise ValueError(f"positions need a number of features that 4 divides; got {dim}")
    # Two small tables are made here and joined later: a large table would be a constant of the program.
    shape = (rows, columns, dim // 2)
    across = jnp.asarray(_features(columns, dim // 2), dtype)
    down = jnp.asarray(_features(rows, dim // 2), dtype)
    return jnp.concatenate(
        [jnp.broadcast_to(across[None], shape), jnp.broadcast_to(down[:, None], shape)], axis=-1
    )


def _features(count: int, dim: int) -> np.ndarray:
    frequencies = _MAX_PERIOD ** (-np.arange(dim // 2) / (dim // 2))
    phase = np.arange(count)[:, None] * frequencies
    return np.concatenate([np.sin(phase), np.cos(phase)], axis=-1)
