"""Two sets of features to be compared: what every measure asks of them, and blocks of their pairs."""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Float

# Rows at once: a block of pairs has 4096 x 4096 numbers, 128 MB in double precision.
BLOCK = 4096


def checked_sets(
    features: np.ndarray, reference: np.ndarray, least: int = 2
) -> tuple[np.ndarray, np.ndarray]:
    """Both sets in double precision.

    - `features`, `reference`: (N, D) and (M, D).
    - `least`: how many rows each must have.

    **Raises:** `ValueError` if there are fewer rows, if widths differ, or if a number is not finite.
    """
    if (
        features.ndim != 2
        or features.shape[1:] != reference.shape[1:]
        or min(len(features), len(reference)) < least
    ):
        count = "two" if least == 2 else least
        raise ValueError(
            f"need two sets of at least {count} features of one width; got {features.shape} and "
            f"{reference.shape}"
        )
    if not (np.isfinite(features).all() and np.isfinite(reference).all()):
        raise ValueError("features must be finite numbers; some are not")
    return features.astype(np.float64), reference.astype(np.float64)


def blocks(count: int) -> Iterator[slice]:
    """Slices that cover `count` rows, in order."""
    for begin in range(0, count, BLOCK):
        yield slice(begin, min(begin + BLOCK, count))


def squared_distances(
    x: Float[np.ndarray, "rows features"], y: Float[np.ndarray, "columns features"]
) -> Float[np.ndarray, "rows columns"]:
    """|x_i − y_j|² of all pairs, as |x_i|² + |y_j|² − 2·x_i·y_j, and exactly 0 for equal rows.

    What is below the rounding error of that difference is 0, so that equal features count as equal whatever
    the block in which they meet.
    """
    sizes = np.sum(x**2, axis=1)[:, None] + np.sum(y**2, axis=1)[None, :]
    distances = x @ (-2.0 * y.T)
    distances += sizes
    sizes *= x.shape[1] * np.finfo(np.float64).eps
    distances[distances <= sizes] = 0.0
    return distances
