"""The kernel distance (KID) between two sets of features: an unbiased estimate of a squared MMD."""

import jax
import numpy as np
from jaxtyping import Float

from diffusion_eqx._typing import PRNGKey
from diffusion_eqx.evaluation.feature_sets import blocks, checked_sets


def kernel_distance(
    features: Float[np.ndarray, "count features"],
    reference: Float[np.ndarray, "reference_count reference_features"],
    *,
    subsets: int = 100,
    subset_size: int = 1000,
    key: PRNGKey,
) -> float:
    """The mean over subsets of MMD² = E k(x, x') + E k(y, y') − 2·E k(x, y) (Bińkowski et al. 2018, eq. 4).

    The kernel is k(x, y) = (x·y/D + 1)³. Pairs of a row with itself are left out. So the estimate is
    unbiased for any number of images, unlike `frechet_distance`; for sets of one distribution it scatters
    around 0, and may be negative.

    - `features`, `reference`: (N, D) and (M, D).
    - `subsets`: how many pairs of subsets are drawn; more of them scatter less.
    - `subset_size`: rows of each subset, drawn without repetition from each set.
    - `key`: draws the subsets.

    **Raises:** `ValueError` if there are fewer than two rows, if widths differ, if a number is not finite,
    if `subsets` is less than 1, or if `subset_size` is not between 2 and the rows of the smaller set.
    """
    x, y = checked_sets(features, reference)
    smaller = min(len(x), len(y))
    if not 2 <= subset_size <= smaller:
        raise ValueError(
            f"subset_size must be between 2 and {smaller}, the features of the smaller set; got "
            f"{subset_size}"
        )
    if subsets < 1:
        raise ValueError(f"subsets must be at least 1; got {subsets}")
    # Where a subset is the whole set, each would be the same.
    first, second = (
        [slice(None)]
        if len(each) == subset_size
        else _rows(key_of_set, len(each), subsets, subset_size)
        for each, key_of_set in zip((x, y), jax.random.split(key), strict=True)
    )
    number = max(len(first), len(second))
    found = [
        _squared_mmd(x[first[i % len(first)]], y[second[i % len(second)]]) for i in range(number)
    ]
    return float(np.mean(found))


def _rows(key: PRNGKey, count: int, subsets: int, size: int) -> list[np.ndarray]:
    """The rows of each subset."""
    keys = jax.random.split(key, subsets)
    return [np.asarray(jax.random.permutation(each, count)[:size]) for each in keys]


def _squared_mmd(x: np.ndarray, y: np.ndarray) -> float:
    m, n = len(x), len(y)
    within = (_sum(x, x) - _own(x)) / (m * (m - 1)) + (_sum(y, y) - _own(y)) / (n * (n - 1))
    return within - 2.0 * _sum(x, y) / (m * n)


def _sum(x: np.ndarray, y: np.ndarray) -> float:
    """The sum of the kernel over all pairs."""
    total = 0.0
    for rows in blocks(len(x)):
        for columns in blocks(len(y)):
            base = x[rows] @ y[columns].T / x.shape[1] + 1.0
            # A product is many times faster than a power.
            total += float(np.sum(base * base * base))
    return total


def _own(x: np.ndarray) -> float:
    """The sum of the kernel over the pairs of a row with itself."""
    return float(np.sum((np.sum(x**2, axis=1) / x.shape[1] + 1.0) ** 3))
