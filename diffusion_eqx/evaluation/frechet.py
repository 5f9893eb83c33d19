"""The Fréchet distance between two sets of features, each taken for a Gaussian."""

import numpy as np


def frechet_distance(features: np.ndarray, reference: np.ndarray) -> float:
    """|m1 − m2|² + tr(C1 + C2 − 2·(C1·C2)^½) (Heusel et al. 2017, eq. 6).

    Shapes (N, D) and (M, D). Biased upwards for small N: compare only sets of equal size, and with the
    same figure of as many real images.

    **Raises:** `ValueError` if there are fewer than two rows, or widths differ.
    """
    if features.shape[1:] != reference.shape[1:] or min(len(features), len(reference)) < 2:
        raise ValueError(
            f"need two sets of at least two features of one width; got {features.shape} and "
            f"{reference.shape}"
        )
    features, reference = features.astype(np.float64), reference.astype(np.float64)
    difference = features.mean(0) - reference.mean(0)
    first, second = np.cov(features, rowvar=False), np.cov(reference, rowvar=False)
    # The eigenvalues of C1·C2 are those of the symmetric C1^½·C2·C1^½: real and not negative.
    values, vectors = np.linalg.eigh(first)
    root = (vectors * np.sqrt(np.maximum(values, 0.0))) @ vectors.T
    eigenvalues = np.linalg.eigvalsh(root @ second @ root)
    cross = np.sqrt(np.maximum(eigenvalues, 0.0)).sum()
    return float(difference @ difference + np.trace(first) + np.trace(second) - 2.0 * cross)
