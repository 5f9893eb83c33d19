import jax
import numpy as np
import pytest

from diffusion_eqx.data import ImageDataset, digits
from diffusion_eqx.evaluation import (
    accuracy,
    frechet_distance,
    judge,
    peak_signal_to_noise_ratio,
    train_classifier,
)


def test_frechet_distance_of_gaussians_is_its_closed_form():
    rng = np.random.default_rng(0)
    mean, scale = np.array([1.0, -2.0, 0.5]), np.array([1.0, 2.0, 0.5])
    x = rng.standard_normal((200_000, 3))
    y = mean + scale * rng.standard_normal((200_000, 3))
    expected = np.sum(mean**2) + np.sum((scale - 1.0) ** 2)
    assert frechet_distance(x, y) == pytest.approx(expected, rel=0.01)
    assert frechet_distance(x, x) == pytest.approx(0.0, abs=1e-6)


def test_frechet_distance_survives_dead_features():
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.standard_normal((100, 2)), np.zeros((100, 1))], axis=1)
    assert frechet_distance(x, x) == pytest.approx(0.0, abs=1e-6)


def test_frechet_distance_of_a_single_feature():
    x = np.random.default_rng(0).standard_normal((100_000, 1))
    assert frechet_distance(x, 3.0 * x + 2.0) == pytest.approx(4.0 + 4.0, rel=0.02)


@pytest.mark.parametrize(
    ("features", "message"),
    [
        (np.zeros((5, 3)), "one width"),
        (np.zeros((1, 2)), "at least two"),
        (np.zeros(5), "one width"),
        (np.full((5, 2), np.nan), "finite"),
    ],
)
def test_frechet_distance_refuses_what_are_no_two_sets(features, message):
    with pytest.raises(ValueError, match=message):
        frechet_distance(features, np.zeros((5, 2)))


def test_classifier_learns_digits_and_judges_unseen_ones(getkey):
    data = digits()
    train = ImageDataset(data.images[:1500], data.labels[:1500])
    classifier = train_classifier(train, epochs=15, batch_size=100, key=getkey())
    assert accuracy(classifier, data.images[1500:], data.labels[1500:]) > 0.9
    features, classes = judge(classifier, data.images[:7], batch_size=3)
    assert features.shape == (7, 64)
    assert classes.shape == (7,)
    with pytest.raises(ValueError, match="labels must be 7"):
        accuracy(classifier, data.images[:7], data.labels[:1])
    with pytest.raises(ValueError, match=r"got \(7, 8, 6, 1\)"):
        judge(classifier, data.images[:7, :, :6])
    with pytest.raises(ValueError, match="at least one"):
        judge(classifier, data.images[:0])


def test_classifier_needs_labels():
    with pytest.raises(ValueError, match="needs labels"):
        train_classifier(ImageDataset(digits().images), key=jax.random.key(0))


def test_peak_signal_to_noise_ratio_is_its_definition():
    """An error of a tenth of the range is 20 dB."""
    images = np.linspace(-0.8, 0.8, 60).reshape(1, 10, 6, 1)
    assert peak_signal_to_noise_ratio(images + 0.2, images) == pytest.approx(20.0)
    assert peak_signal_to_noise_ratio(images, images) == np.inf
    with pytest.raises(ValueError, match="shapes"):
        peak_signal_to_noise_ratio(images, images[:, :5])
