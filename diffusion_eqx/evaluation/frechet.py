"""The Fréchet distance between two sets of features, each taken for a Gaussian."""

import numpy as np


def frechet_distance(features: np.ndarray, reference: np.ndarray) -> float:
    """|m1 − m2|² + tr(C1 + C2 − 2·(C1·C2)^½) (Heusel et al. 2017, eq. 6).

    - `features`, `reference`: (N, D) and (M, D).

    It is biased upwards for small N. Compare sets of equal size only, and with the same figure of as many
    real images.

    **Raises:** `ValueError` if there are fewer than two rows, if widths differ, or if a number is not
    finite.
    """
    if (
        features.ndim != 2
        or features.shape[1:] != reference.shape[1:]
        or min(len(features), len(reference)) < 2
    ):
        raise ValueError(
            f"need two sets of at least two features of one width; got {features.shape} and "
            f"{reference.shape}"
        )
    if not (np.isfinite(features).all() and np.isfinite(reference).all()):
        raise ValueError("features must be finite numbers; some are not")
    features, reference = features.astype(np.float64), reference.astype(np.float64)
    difference = features.mean(0) - reference.mean(0)
    first, second = (np.atleast_2d(np.cov(x, rowvar=False)) for x in (features, reference))
    # The eigenvalues of C1·C2 are those of the symmetric C1^½·C2·C1^½: real and not negative.
    values, vectors = np.linalg.eigh(first)
    root = (vectors * np.sqrt(np.maximum(values, 0.0))) @ vectors.T
    eigenvalues = np.linalg.eigvalsh(root @ second @ root)
    cross = np.sqrt(np.maximum(eigenvalues, 0.0)).sum()
    return float(difference @ difference + np.trace(first) + np.trace(second) - 2.0 * cross)
