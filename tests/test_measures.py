"""Measures between sets of features have their exact answers."""

import jax
import numpy as np
import pytest

from diffusion_eqx.evaluation import (
    density_coverage,
    frechet_distance,
    kernel_distance,
    precision_recall,
)


def normal(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape)


def kernel(x, y) -> float:
    return (sum(a * b for a, b in zip(x, y, strict=True)) / len(x) + 1.0) ** 3


def squared_mmd(xs, ys) -> float:
    """Bińkowski et al. 2018, equation 4, one pair after the other."""
    m, n = len(xs), len(ys)
    xx = sum(kernel(xs[i], xs[j]) for i in range(m) for j in range(m) if i != j)
    yy = sum(kernel(ys[i], ys[j]) for i in range(n) for j in range(n) if i != j)
    xy = sum(kernel(x, y) for x in xs for y in ys)
    return xx / (m * (m - 1)) + yy / (n * (n - 1)) - 2.0 * xy / (m * n)


def radius(rows, i: int, k: int) -> float:
    others = [np.linalg.norm(rows[i] - rows[j]) for j in range(len(rows)) if j != i]
    return sorted(others)[k - 1]


def inside(points, centres, k: int) -> np.ndarray:
    """Whether point j lies in the ball of centre i, one pair after the other."""
    radii = [radius(centres, i, k) for i in range(len(centres))]
    return np.array(
        [[np.linalg.norm(p - c) <= r for c, r in zip(centres, radii, strict=True)] for p in points]
    )


def test_the_kernel_distance_of_whole_sets_is_the_sum_over_pairs(getkey):
    x, y = normal(0, 7, 3), 0.5 + normal(1, 7, 3)
    found = kernel_distance(x, y, subsets=3, subset_size=7, key=getkey())
    assert found == pytest.approx(squared_mmd(x, y), rel=1e-10)


def test_the_kernel_distance_of_two_by_two_by_hand(getkey):
    """k(0, 0) = k(0, y) = 1, and k of the two others is (1 + 1)³: 1 + 8 − 2."""
    x, y = np.zeros((2, 1)), np.ones((2, 1))
    assert kernel_distance(x, y, subsets=1, subset_size=2, key=getkey()) == pytest.approx(7.0)


def test_the_kernel_distance_is_unbiased(getkey):
    """Over many pairs of small sets of one distribution its mean is 0, and of two what it must be."""
    same, shifted = [], []
    for seed in range(800):
        x, y = normal(2 * seed, 10, 2), normal(2 * seed + 1, 10, 2)
        same.append(kernel_distance(x, y, subsets=1, subset_size=10, key=getkey()))
        shifted.append(kernel_distance(x + 1.0, y, subsets=1, subset_size=10, key=getkey()))
    # E k(x, y) for independent normals x, y of means m, n follows from the moments of s = x·y/2.
    expected = mean_kernel(1.0, 1.0) + mean_kernel(0.0, 0.0) - 2.0 * mean_kernel(1.0, 0.0)
    for found, wanted in ((same, 0.0), (shifted, expected)):
        error = np.std(found) / len(found) ** 0.5
        assert abs(np.mean(found) - wanted) < 3.5 * error
    # The estimate with the pairs of a row with itself would be off by more than that.
    own = np.mean([np.mean([kernel(a, a) for a in normal(seed, 10, 2)]) for seed in range(100)])
    bias = 2.0 * (own - mean_kernel(0.0, 0.0)) / 10
    assert bias > 7.0 * np.std(same) / len(same) ** 0.5


def mean_kernel(m: float, n: float) -> float:
    """E (x·y/2 + 1)³ for x ~ N((m, m), I), y ~ N((n, n), I), by Gauss–Hermite quadrature, exact here."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(6)
    weights = weights / weights.sum()
    moments = [
        sum(
            u * v * ((m + a) * (n + b) / 2) ** p
            for a, u in zip(nodes, weights, strict=True)
            for b, v in zip(nodes, weights, strict=True)
        )
        for p in range(4)
    ]
    # The two coordinates are independent.
    third = 2 * moments[3] + 6 * moments[2] * moments[1]
    second = 2 * moments[2] + 2 * moments[1] ** 2
    return third + 3 * second + 3 * 2 * moments[1] + 1


def test_subsets_of_the_kernel_distance_scatter_around_that_of_the_whole(getkey):
    x, y = normal(0, 60, 3), 0.4 + normal(1, 50, 3)
    found = kernel_distance(x, y, subsets=2000, subset_size=10, key=getkey())
    assert found == pytest.approx(squared_mmd(x, y), rel=0.05)
    key = getkey()
    again = [kernel_distance(x, y, subsets=3, subset_size=10, key=key) for _ in range(2)]
    assert again[0] == again[1]
    assert kernel_distance(x, y, subsets=3, subset_size=10, key=getkey()) != again[0]


@pytest.mark.parametrize(("k", "width"), [(1, 2), (3, 5)])
def test_neighbours_are_those_of_a_double_loop(k, width):
    x, y = 0.6 + normal(0, 23, width), 1.3 * normal(1, 31, width)
    of_reference, of_features = inside(x, y, k), inside(y, x, k)
    found = precision_recall(x, y, neighbours=k)
    assert found.precision == pytest.approx(of_reference.any(1).mean())
    assert found.recall == pytest.approx(of_features.any(1).mean())
    found = density_coverage(x, y, neighbours=k)
    assert found.density == pytest.approx(of_reference.sum() / (k * len(x)))
    assert found.coverage == pytest.approx(of_reference.any(0).mean())


@pytest.mark.parametrize("block", [1, 4, 7, 1000])
def test_blocks_change_nothing(block, monkeypatch, getkey):
    monkeypatch.setattr("diffusion_eqx.evaluation.feature_sets.BLOCK", block)
    x, y = 0.6 + normal(0, 23, 3), 1.3 * normal(1, 23, 3)
    balls = inside(x, y, 3)
    assert precision_recall(x, y).precision == pytest.approx(balls.any(1).mean())
    assert density_coverage(x, y, neighbours=3).coverage == pytest.approx(balls.any(0).mean())
    found = kernel_distance(x, y, subsets=1, subset_size=23, key=getkey())
    assert found == pytest.approx(squared_mmd(x, y), rel=1e-10)


def test_equal_sets_are_precise_and_covered():
    """Each ball holds its centre and k others."""
    x = normal(0, 200, 4)
    assert precision_recall(x, x[::-1]) == (1.0, 1.0)
    assert density_coverage(x, x[::-1], neighbours=5) == (pytest.approx(6 / 5), 1.0)


@pytest.mark.parametrize("block", [238, 239, 1000])
def test_equal_sets_of_repeated_rows_are_covered(block, monkeypatch):
    """Radii are 0 where more rows are equal than neighbours are counted, however the last block rounds."""
    monkeypatch.setattr("diffusion_eqx.evaluation.feature_sets.BLOCK", block)
    x = np.repeat(1e4 * normal(0, 40, 37), 6, axis=0)
    shuffled = np.random.default_rng(1).permutation(x)
    assert precision_recall(shuffled, x) == (1.0, 1.0)
    assert density_coverage(shuffled, x, neighbours=5).coverage == 1.0


def test_disjoint_sets_have_nothing():
    x, y = normal(0, 50, 4), 100.0 + normal(1, 60, 4)
    assert precision_recall(x, y) == (0.0, 0.0)
    assert density_coverage(x, y) == (0.0, 0.0)


def test_sets_of_one_distribution_have_density_one():
    """The means are 1, and for coverage 1 − Π_i (M − i)/(N + M − i) (Naeem et al. 2020, section 3)."""
    found = [
        density_coverage(normal(2 * s, 100, 3), normal(2 * s + 1, 100, 3), neighbours=5)
        for s in range(60)
    ]
    densities, coverages = np.transpose(found)
    k, m, n = 5, 100, 100
    missed = np.prod([(m - i) / (n + m - i) for i in range(1, k + 1)])
    for values, wanted in ((densities, 1.0), (coverages, 1.0 - missed)):
        assert abs(values.mean() - wanted) < 4 * values.std() / len(values) ** 0.5


def test_dropped_modes_cost_recall_and_coverage_but_no_precision():
    centres = 20.0 * np.eye(4)
    reference = np.concatenate([c + normal(i, 100, 4) for i, c in enumerate(centres)])
    whole = np.concatenate([c + normal(10 + i, 100, 4) for i, c in enumerate(centres)])
    half = np.concatenate([c + normal(20 + i, 200, 4) for i, c in enumerate(centres[:2])])
    before, after = (precision_recall(x, reference) for x in (whole, half))
    assert before.recall > 0.85
    assert after.recall == pytest.approx(0.5, abs=0.05)
    assert after.precision == pytest.approx(before.precision, abs=0.05)
    before, after = (density_coverage(x, reference) for x in (whole, half))
    assert before.coverage > 0.9
    assert after.coverage == pytest.approx(0.5, abs=0.02)
    assert after.density == pytest.approx(before.density, abs=0.15)


@pytest.mark.parametrize(
    "measure",
    [
        frechet_distance,
        precision_recall,
        density_coverage,
        lambda x, y: kernel_distance(x, y, subsets=1, subset_size=2, key=jax.random.key(0)),
    ],
)
def test_what_are_no_two_sets_is_refused(measure):
    with pytest.raises(ValueError, match=r"one width; got \(9, 3\) and \(9, 2\)"):
        measure(np.zeros((9, 3)), np.zeros((9, 2)))
    with pytest.raises(ValueError, match="at least"):
        measure(np.zeros((9, 3)), np.zeros((1, 3)))
    with pytest.raises(ValueError, match="finite"):
        measure(np.zeros((9, 3)), np.full((9, 3), np.nan))


def test_numbers_out_of_range_are_refused(getkey):
    x = normal(0, 5, 3)
    with pytest.raises(ValueError, match="neighbours must be at least 1; got 0"):
        precision_recall(x, x, neighbours=0)
    with pytest.raises(ValueError, match="at least 6 features"):
        density_coverage(x, x, neighbours=5)
    for size in (1, 6):
        with pytest.raises(ValueError, match=f"between 2 and 5.*got {size}"):
            kernel_distance(x, x, subset_size=size, key=getkey())
    with pytest.raises(ValueError, match="subsets must be at least 1"):
        kernel_distance(x, x, subsets=0, subset_size=3, key=getkey())
