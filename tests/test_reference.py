"""Features of any function; references as files that say what they are; all measures at once."""

import dataclasses
import json

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors
from PIL import Image

from diffusion_eqx.config import NoisyClassifierConfig
from diffusion_eqx.data import ImageDataset, ImageFolder, digits
from diffusion_eqx.evaluation import (
    Classifier,
    ClassifierFeatures,
    CleanClassifier,
    NamedFeatures,
    accuracy,
    evaluate,
    extract,
    judge,
    load_reference,
    make_reference,
    save_reference,
)
from diffusion_eqx.models import ModelFileError, NoisyClassifier
from tests.perturbed import perturbed


def means(images) -> np.ndarray:
    """Mean and spread of rows and columns, as a function of another library would give them."""
    pixels = np.asarray(images, np.float64)[..., 0]
    parts = [pixels.mean(1), pixels.std(1), pixels.mean(2)]
    return np.concatenate(parts, axis=1)


FEATURES = NamedFeatures("means of rows and columns", means)
DIGITS = digits()


@pytest.fixture(scope="module")
def reference():
    return make_reference(FEATURES, DIGITS)


class Streamed:
    """Digits that no array holds."""

    shape = (8, 8, 1)
    num_classes = None
    class_names = ()
    labels = None

    def __len__(self):
        return 90

    def batches(self, batch_size, *, seed):
        return ImageDataset(DIGITS.images[:90]).batches(batch_size, seed=seed)


def test_features_are_those_of_each_image_whatever_the_batches():
    images = DIGITS.images[:23]
    for size in (1, 7, 23, 100):
        found = extract(FEATURES, images, batch_size=size)
        np.testing.assert_allclose(found, means(images), atol=1e-6)
        assert found.dtype == np.float32
    np.testing.assert_allclose(extract(FEATURES, jnp.asarray(images)), means(images), atol=1e-6)
    data = ImageDataset(images)
    np.testing.assert_allclose(extract(FEATURES, data, batch_size=5), means(images), atol=1e-6)


def test_bytes_are_seen_as_floats():
    pixels = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 1), np.uint8)
    np.testing.assert_allclose(extract(FEATURES, pixels), means(pixels / 127.5 - 1.0), atol=1e-6)


def test_a_data_set_without_an_array_gives_each_image_once():
    found = extract(FEATURES, Streamed(), batch_size=40)
    wanted = means(DIGITS.images[:90])
    assert found.shape == wanted.shape
    np.testing.assert_allclose(
        found[np.lexsort(found.T)], wanted[np.lexsort(wanted.T)].astype(np.float32), atol=1e-6
    )


def test_the_features_of_a_classifier_are_those_it_judges_by(getkey):
    classifier = Classifier((8, 8, 1), 10, key=getkey())
    features = ClassifierFeatures(classifier)
    images = DIGITS.images[:9]
    np.testing.assert_allclose(
        extract(features, images, batch_size=4), judge(classifier, images)[0], rtol=1e-5, atol=1e-6
    )
    with pytest.raises(ValueError, match=r"got \(9, 8, 6, 1\)"):
        extract(features, images[:, :, :6])


def test_the_name_of_a_classifiers_features_is_that_of_its_weights(getkey):
    key = getkey()
    classifier = Classifier((8, 8, 1), 10, key=key)
    name = ClassifierFeatures(classifier).name
    assert ClassifierFeatures(Classifier((8, 8, 1), 10, key=key)).name == name
    moved = eqx.tree_at(
        lambda c: c.out.weight, classifier, classifier.out.weight.at[0, 0].add(1e-3)
    )
    assert ClassifierFeatures(moved).name != name


def test_a_classifier_of_noisy_images_judges_clean_ones(getkey):
    config = NoisyClassifierConfig(input_shape=(8, 8, 1), hidden_dims=(8,), time_embedding_dim=8)
    fresh = eqx.nn.inference_mode(NoisyClassifier(config, key=getkey()))
    noisy = perturbed(fresh, key=getkey(), scale=0.5)
    noisy = eqx.tree_at(lambda c: c.schedule, noisy, fresh.schedule)
    clean, images = CleanClassifier(noisy), DIGITS.images[:6]
    features, classes = judge(clean, images)
    # The schedule's alpha at timestep 0 is 1 to a thousandth, and the classifier is continuous.
    level = noisy.schedule.at(1.0 / noisy.schedule.num_timesteps)
    logits = noisy(jnp.asarray(images), level)
    np.testing.assert_array_equal(classes, np.asarray(logits).argmax(1))
    assert features.shape == (6, 8)
    assert accuracy(clean, images, classes) == 1.0
    # The layer is the one that the decision is made from: with weights of 1, the sum over all places.
    ends = (jnp.ones_like(noisy.out.weight), jnp.zeros_like(noisy.out.bias))
    summing = eqx.tree_at(lambda c: (c.out.weight, c.out.bias), noisy, ends)
    sums = summing(jnp.asarray(images), level)[:, 0]
    np.testing.assert_allclose(features.sum(1) * 16, sums, rtol=2e-2, atol=2e-2)
    later = summing(jnp.asarray(images), noisy.schedule.at(0.9))[:, 0]
    assert np.abs(features.sum(1) * 16 - later).max() > 1.0


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.zeros((0, 8, 8, 1)), "at least one"),
        (np.zeros((3, 8, 8)), "height, width, channels"),
        (np.zeros((3, 8, 8, 1), np.int32), "got int32"),
        (np.full((3, 8, 8, 1), -255.0), "images / 127.5"),
        (np.full((3, 8, 8, 1), 0.5), "2 \\* images - 1"),
    ],
)
def test_what_are_no_images_is_refused(images, message):
    with pytest.raises(ValueError, match=message):
        extract(FEATURES, images)


def test_a_function_that_gives_no_features_is_named():
    for function in (lambda images: images, lambda images: np.zeros((3, 5))):
        with pytest.raises(ValueError, match="'odd' must give features"):
            extract(NamedFeatures("odd", function), DIGITS.images[:4])
    with pytest.raises(ValueError, match="'odd' are not finite"):
        extract(NamedFeatures("odd", lambda x: np.full((len(x), 2), np.nan)), DIGITS.images[:4])


def test_a_reference_is_its_definition_and_says_what_it_is(reference):
    wanted = means(DIGITS.images)
    np.testing.assert_allclose(reference.features, wanted, atol=1e-6)
    np.testing.assert_allclose(reference.mean, wanted.sum(0) / len(wanted), atol=1e-6)
    away = wanted - wanted.mean(0)
    np.testing.assert_allclose(reference.covariance, away.T @ away / (len(wanted) - 1), atol=1e-6)
    assert (reference.count, reference.width) == (1797, 24)
    assert reference.feature_name == FEATURES.name
    assert reference.preprocessing.image_shape == (8, 8, 1)
    assert reference.preprocessing.rounding == "none"
    assert reference.preprocessing.value_range == (-1.0, 1.0)


def test_the_digest_is_of_the_pixels(reference):
    reference.check_data(DIGITS.images)
    assert make_reference(FEATURES, DIGITS, batch_size=100).data_digest == reference.data_digest
    changed = DIGITS.images.copy()
    changed[1000, 3, 3, 0] *= -1.0
    changed[1000, 3, 4, 0] += 0.125
    with pytest.raises(ValueError, match="made of other images"):
        reference.check_data(changed)
    with pytest.raises(ValueError, match="made of other images"):
        reference.check_data(DIGITS.images[:-1])


def test_pictures_of_a_folder_are_recorded_with_their_filter(tmp_path):
    for number in range(3):
        pixels = np.random.default_rng(number).integers(0, 256, (20, 20), np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
    found = make_reference(FEATURES, ImageFolder(tmp_path, size=8)).preprocessing
    assert "bicubic" in found.resize
    assert found.rounding == "8 bits"
    assert make_reference(FEATURES, DIGITS, resize="by hand").preprocessing.resize == "by hand"


def test_a_reference_returns_from_its_file(reference, tmp_path):
    path = tmp_path / "deep" / "digits.safetensors"
    save_reference(path, reference)
    loaded = load_reference(path)
    for field in dataclasses.fields(reference):
        wanted, found = (getattr(each, field.name) for each in (reference, loaded))
        if isinstance(wanted, np.ndarray):
            assert found.dtype == wanted.dtype
            np.testing.assert_array_equal(found, wanted)
        else:
            assert found == wanted
    assert [each.name for each in path.parent.iterdir()] == [path.name]
    before = path.read_bytes()
    save_reference(path, loaded)
    assert path.read_bytes() == before


def test_a_file_says_what_it_is_to_whoever_reads_safetensors(reference, tmp_path):
    path = tmp_path / "digits.safetensors"
    save_reference(path, reference)
    with safetensors.safe_open(path, framework="numpy") as file:
        said = json.loads(file.metadata()["diffusion_eqx"])
        assert set(file.keys()) == {"features", "mean", "covariance"}
    assert said["feature_name"] == FEATURES.name
    assert said["count"] == "1797"
    assert said["data_digest"] == reference.data_digest
    assert json.loads(said["preprocessing"])["image_shape"] == [8, 8, 1]
    assert said["version"]


def test_every_damage_is_found(tmp_path):
    """Any bit of the header, and bits all over the arrays."""
    small = make_reference(FEATURES, DIGITS.images[:40])
    path = tmp_path / "digits.safetensors"
    save_reference(path, small)
    whole = path.read_bytes()
    header = 8 + int.from_bytes(whole[:8], "little")
    padding = len(whole[8:header]) - len(whole[8:header].rstrip(b" "))
    places = [*range(header - padding), *range(header, len(whole), 97), len(whole) - 1]
    random = np.random.default_rng(0)
    for place in places:
        damaged = bytearray(whole)
        damaged[place] ^= 1 << int(random.integers(8))
        path.write_bytes(bytes(damaged))
        with pytest.raises(ValueError):  # noqa: PT011 - which words depends on what was hit
            load_reference(path)
    path.write_bytes(whole[:-5])
    with pytest.raises(ModelFileError, match="damaged"):
        load_reference(path)
    path.write_bytes(whole[:-3] + b"abc")
    with pytest.raises(ModelFileError, match=r"is damaged: its content has the digest .* again"):
        load_reference(path)


def test_what_is_no_reference_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="make one by save_reference"):
        load_reference(tmp_path / "none.safetensors")
    (tmp_path / "other.safetensors").write_text("no such thing")
    with pytest.raises(ModelFileError, match="not a safetensors file"):
        load_reference(tmp_path / "other.safetensors")


def test_equal_images_are_perfect(reference):
    found = evaluate(DIGITS, reference, FEATURES)
    assert found["frechet_distance"] == pytest.approx(0.0, abs=1e-6)
    assert found["kernel_distance"] == pytest.approx(0.0, abs=0.01)
    assert found["precision"] == found["recall"] == found["coverage"] == 1.0
    assert found["density"] == pytest.approx(6 / 5, rel=0.01)
    assert json.loads(json.dumps(found)) == found
    assert "accuracy" not in found


def test_every_measure_sees_noise_and_lost_classes(reference, getkey):
    whole = evaluate(DIGITS.images[::2], reference, FEATURES)
    noise = 0.7 * np.asarray(jax.random.normal(getkey(), DIGITS.images[::2].shape))
    noisy = evaluate(np.clip(DIGITS.images[::2] + noise, -1.0, 1.0), reference, FEATURES)
    lost = evaluate(DIGITS.images[DIGITS.labels < 3], reference, FEATURES)
    for worse in (noisy, lost):
        assert worse["frechet_distance"] > 2.0 * whole["frechet_distance"] + 0.1
        assert worse["kernel_distance"] > whole["kernel_distance"] + 0.001
        assert worse["recall"] < whole["recall"] - 0.1
        assert worse["coverage"] < whole["coverage"] - 0.1
    assert noisy["precision"] < whole["precision"] - 0.1
    assert lost["precision"] > whole["precision"] - 0.1
    assert lost["density"] > whole["density"] - 0.1 > noisy["density"]


def test_numbers_are_the_same_again_and_with_other_batches(reference):
    images = DIGITS.images[:50]
    first = evaluate(images, reference, FEATURES)
    assert evaluate(images, reference, FEATURES, batch_size=7) == pytest.approx(first, rel=1e-5)
    assert evaluate(images, reference, FEATURES) == first


def test_accuracy_is_the_share_of_the_classifiers_own_answers(reference, getkey):
    classifier = Classifier((8, 8, 1), 10, key=getkey())
    images = DIGITS.images[:40]
    labels = judge(classifier, images)[1].copy()
    labels[:10] = (labels[:10] + 1) % 10
    found = evaluate(images, reference, FEATURES, labels, classifier)
    assert found["accuracy"] == 0.75


def test_images_are_rounded_as_the_reference_was():
    """Floats that stand for bytes, and those bytes, have the same figures; unrounded, others."""
    pixels = np.random.default_rng(0).integers(0, 4, (60, 8, 8, 1), np.uint8)
    floats = (pixels / 127.5 - 1.0).astype(np.float32)
    between = floats + np.float32(0.003) * np.sign(floats)
    in_bytes = make_reference(FEATURES, pixels[:30])
    wanted = evaluate(pixels[30:], in_bytes, FEATURES)
    assert evaluate(between[30:], in_bytes, FEATURES) == pytest.approx(wanted, abs=1e-6)
    exact = make_reference(FEATURES, floats[:30])
    assert evaluate(between[30:], exact, FEATURES) != pytest.approx(wanted, abs=1e-6)


def test_features_of_another_function_are_refused(reference):
    other = NamedFeatures("other", means)
    with pytest.raises(ValueError, match=r"features of 'means of rows and columns'; .* 'other'"):
        evaluate(DIGITS.images[:20], reference, other)
    narrow = NamedFeatures(FEATURES.name, lambda images: means(images)[:, :3])
    with pytest.raises(ValueError, match=r"24 features of each image; .* now gives 3"):
        evaluate(DIGITS.images[:20], reference, narrow)


def test_images_that_do_not_fit_the_reference_are_refused(reference):
    with pytest.raises(ValueError, match=r"shape \(8, 8, 1\); got \(8, 6, 1\)"):
        evaluate(DIGITS.images[:20, :, :6], reference, FEATURES)
    with pytest.raises(ValueError, match="at least 6 features"):
        evaluate(DIGITS.images[:5], reference, FEATURES)
