"""The Fréchet distance between two sets of features, each taken for a Gaussian."""

import numpy as np

from diffusion_eqx.evaluation.feature_sets import checked_sets


def frechet_distance(features: np.ndarray, reference: np.ndarray) -> float:
    """|m1 − m2|² + tr(C1 + C2 − 2·(C1·C2)^½) (Heusel et al. 2017, eq. 6).

    - `features`, `reference`: (N, D) and (M, D).

    It is biased upwards for small N. Compare sets of equal size only, and with the same figure of as many
    real images.

    **Raises:** `ValueError` if there are fewer than two rows, if widths differ, or if a number is not
    finite.
    """
    first, second = checked_sets(features, reference)
    return frechet_of_moments(*moments(first), *moments(second))


def moments(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean (D,) and covariance (D, D), divided by N − 1, of features (N, D), in double precision."""
    features = features.astype(np.float64)
    return features.mean(0), np.atleast_2d(np.cov(features, rowvar=False))


def frechet_of_moments(
    first_mean: np.ndarray, first: np.ndarray, second_mean: np.ndarray, second: np.ndarray
) -> float:
    """The distance between two Gaussians of given means (D,) and covariances (D, D)."""
    difference = first_mean - second_mean
    # The eigenvalues of C1·C2 are those of the symmetric C1^½·C2·C1^½: real and not negative.
    values, vectors = np.linalg.eigh(first)
    root = (vectors * np.sqrt(np.maximum(values, 0.0))) @ vectors.T
    eigenvalues = np.linalg.eigvalsh(root @ second @ root)
    cross = np.sqrt(np.maximum(eigenvalues, 0.0)).sum()
    return float(difference @ difference + np.trace(first) + np.trace(second) - 2.0 * cross)
