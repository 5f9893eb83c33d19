"""Fidelity and variety apart: measures by balls around features that reach to the k-th nearest neighbour.

The ball of a row x_i of a set X has the radius r_k(x_i) = |x_i − x'|, where x' is the k-th nearest of the
other rows of X. The union of the balls is taken for the region that the set's distribution fills.
Balls are closed: a row at the very distance counts as inside.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from diffusion_eqx.evaluation.feature_sets import blocks, checked_sets, squared_distances


class PrecisionRecall(NamedTuple):
    """Shares in [0, 1], of images that look real and of real images that the model could draw.

    - `precision`: the share of features inside a ball of the reference.
    - `recall`: the share of the reference inside a ball of the features.
    """

    precision: float
    recall: float


class DensityCoverage(NamedTuple):
    """How densely features fill the region of the reference, and how much of it they reach.

    - `density`: at least 0; about 1 for sets of one distribution, and not bounded by it.
    - `coverage`: the share in [0, 1] of the reference's balls that hold a feature.
    """

    density: float
    coverage: float


def precision_recall(
    features: Float[np.ndarray, "count features"],
    reference: Float[np.ndarray, "reference_count reference_features"],
    *,
    neighbours: int = 3,
) -> PrecisionRecall:
    """Precision and recall by nearest neighbours (Kynkäänniemi et al. 2019, eqs. 1 and 2).

    precision = 1/N·Σ_j 1[exists i: |x_j − y_i| ≤ r_k(y_i)], for features x and a reference y; recall is the
    same with the sets exchanged. One outlier of the reference has a large ball, and can raise precision;
    `density_coverage` is less moved by it. Compare sets of equal size only.

    - `features`, `reference`: (N, D) and (M, D).
    - `neighbours`: k.

    **Raises:** `ValueError` unless 1 <= `neighbours` and each set has more rows than that; if widths
    differ; if a number is not finite.
    """
    x, y = _checked(features, reference, neighbours)
    precise, _ = _inside(x, y, _squared_radii(y, neighbours))
    recalled, _ = _inside(y, x, _squared_radii(x, neighbours))
    return PrecisionRecall(float(np.mean(precise > 0)), float(np.mean(recalled > 0)))


def density_coverage(
    features: Float[np.ndarray, "count features"],
    reference: Float[np.ndarray, "reference_count reference_features"],
    *,
    neighbours: int = 5,
) -> DensityCoverage:
    """Density and coverage (Naeem et al. 2020, section 3), with balls around the reference only.

    With N features x and a reference of M rows y,

    - density = 1/(k·N)·Σ_j Σ_i 1[|x_j − y_i| ≤ r_k(y_i)],
    - coverage = 1/M·Σ_i 1[exists j: |x_j − y_i| ≤ r_k(y_i)].

    Coverage grows with N: compare sets of equal size only.

    - `features`, `reference`: (N, D) and (M, D).
    - `neighbours`: k.

    **Raises:** `ValueError` as `precision_recall`.
    """
    x, y = _checked(features, reference, neighbours)
    balls, reached = _inside(x, y, _squared_radii(y, neighbours))
    return DensityCoverage(float(np.mean(balls)) / neighbours, float(np.mean(reached)))


def _checked(
    features: np.ndarray, reference: np.ndarray, neighbours: int
) -> tuple[np.ndarray, np.ndarray]:
    if neighbours < 1:
        raise ValueError(f"neighbours must be at least 1; got {neighbours}")
    x, y = checked_sets(features, reference, least=neighbours + 1)
    # Distances are differences of large numbers, and smaller ones near the middle.
    return x - y.mean(0), y - y.mean(0)


def _squared_radii(
    x: Float[np.ndarray, "count features"], neighbours: int
) -> Float[np.ndarray, " count"]:
    """The squared distance of each row to its k-th nearest among the others."""
    radii = np.empty(len(x))
    for rows in blocks(len(x)):
        nearest = []
        for columns in blocks(len(x)):
            distances = squared_distances(x[rows], x[columns])
            if rows == columns:
                np.fill_diagonal(distances, np.inf)
            keep = min(neighbours, distances.shape[1])
            distances.partition(keep - 1, axis=1)
            nearest.append(distances[:, :keep].copy())
        radii[rows] = np.sort(np.concatenate(nearest, axis=1), axis=1)[:, neighbours - 1]
    return radii


def _inside(
    points: Float[np.ndarray, "points features"],
    centres: Float[np.ndarray, "centres features"],
    squared_radii: Float[np.ndarray, " centres"],
) -> tuple[Int[np.ndarray, " points"], Bool[np.ndarray, " centres"]]:
    """In how many balls each point lies, and which balls hold a point."""
    balls, reached = np.zeros(len(points), np.int64), np.zeros(len(centres), bool)
    for rows in blocks(len(points)):
        for columns in blocks(len(centres)):
            distances = squared_distances(points[rows], centres[columns])
            inside = distances <= squared_radii[columns]
            balls[rows] += inside.sum(axis=1)
            reached[columns] |= inside.any(axis=0)
    return balls, reached
