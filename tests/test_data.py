"""Data sets of arrays: what they hold, what they refuse, and their batches."""

import gzip
import subprocess
import sys

import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import TypeCheckError

from diffusion_eqx.data import (
    ArrayDataset,
    Dataset,
    ImageDataset,
    ImagesInMemory,
    digits,
    emoji,
    fashion_mnist,
    to_bytes,
    to_unit_range,
)

# The tests' own type checking may refuse a wrong type before the library does.
REFUSED = (ValueError, TypeCheckError)
BYTES = np.arange(3 * 4 * 4, dtype=np.uint8).reshape(3, 4, 4, 1)


def test_fashion_mnist_is_whole():
    train, test = fashion_mnist("train"), fashion_mnist("test")
    assert train.images.shape == (60_000, 28, 28, 1)
    assert test.images.shape == (10_000, 28, 28, 1)
    np.testing.assert_array_equal(np.bincount(train.labels), 6000)
    np.testing.assert_array_equal(np.bincount(test.labels), 1000)
    assert train.class_names[8] == "bag"


def test_missing_files_say_what_to_install(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"ubyte\.gz"):
        fashion_mnist("test", tmp_path)
    for name, header in (
        (
            "t10k-images-idx3-ubyte.gz",
            b"\0\0\x08\x03" + bytes([0, 0, 0, 1, 0, 0, 0, 28, 0, 0, 0, 28]),
        ),
        ("t10k-labels-idx1-ubyte.gz", b"\0\0\x08\x01" + bytes([0, 0, 0, 1])),
    ):
        body = bytes(784 if "images" in name else 1)
        (tmp_path / name).write_bytes(gzip.compress(header + body))
    assert len(fashion_mnist("test", tmp_path)) == 1


def test_digits_are_in_range():
    data = digits()
    assert data.images.shape == (1797, 8, 8, 1)
    assert (data.images.min(), data.images.max()) == (-1.0, 1.0)
    assert data.num_classes == 10


def test_emoji_are_in_colour_and_all_different():
    images = emoji().images
    assert images.shape[1:] == (32, 32, 3)
    assert images.dtype == np.uint8
    assert len(images) > 3000
    assert len({image.tobytes() for image in images}) > 0.98 * len(images)
    # Most are drawn on white, and in colour.
    assert np.median(images[:, 0, 0]) == 255
    assert np.mean(np.abs(images[..., 0].astype(float) - images[..., 2])) > 10
    np.testing.assert_array_equal(emoji().images[7], images[7])


def test_a_missing_or_other_font_says_what_to_install(tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError):
        emoji(font=tmp_path / "no.ttf")
    # The package exports the function under the module's name, so the module is reached by its own.
    monkeypatch.setattr(sys.modules["diffusion_eqx.data.emoji"], "_PACKAGE_PLACE", "nowhere.ttf")
    with pytest.raises(FileNotFoundError, match="fonts-noto-color-emoji"):
        emoji()


@pytest.mark.parametrize("array", [np.asarray, jnp.asarray], ids=["numpy", "jax"])
def test_bytes_and_floats_are_inverse(array):
    values = np.arange(256, dtype=np.uint8)
    floats = to_unit_range(array(values))
    assert isinstance(floats, type(array(values)))
    assert floats.dtype == np.float32
    assert (floats[0], floats[-1]) == (-1.0, 1.0)
    np.testing.assert_array_equal(to_bytes(floats), values)
    np.testing.assert_array_equal(to_bytes(values), values)
    np.testing.assert_array_equal(to_bytes(np.array([-5.0, 5.0])), [0, 255])
    np.testing.assert_array_equal(to_unit_range(floats), floats)


def test_batches_are_a_function_of_seed_and_number():
    data = digits()
    first, second = data.batches(64, seed=3), data.batches(64, seed=3)
    for number in (0, 5, 100):
        np.testing.assert_array_equal(first[number]["images"], second[number]["images"])
    assert not np.array_equal(first[0]["images"], data.batches(64, seed=4)[0]["images"])
    assert not np.array_equal(first[0]["images"], first[28]["images"])


def test_an_epoch_shows_every_image_once_with_its_own_label():
    data = ImageDataset(np.arange(12, dtype=np.uint8).reshape(12, 1, 1, 1), np.arange(12))
    stream = data.batches(4, seed=0)
    batches = [stream[number] for number in range(9)]
    for batch in batches:
        np.testing.assert_array_equal(batch["images"].reshape(4), batch["labels"])
    epochs = [np.concatenate([b["labels"] for b in batches[3 * e : 3 * e + 3]]) for e in range(3)]
    for epoch in epochs:
        np.testing.assert_array_equal(np.sort(epoch), np.arange(12))
    assert not np.array_equal(epochs[0], epochs[1])


@pytest.mark.parametrize(
    ("batch_size", "seed", "message"),
    [(0, 0, "batch_size"), (2.0, 0, "batch_size"), (2, -1, "seed"), (2, "a", "seed")],
)
def test_batches_of_wrong_size_or_seed_are_refused(batch_size, seed, message):
    with pytest.raises(REFUSED, match=message):
        ImageDataset(BYTES).batches(batch_size, seed=seed)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.zeros((3, 4, 4)), r"N, H, W, C.*images\[\.\.\., None\]"),
        (np.zeros((0, 4, 4, 1)), "non-empty"),
        (np.zeros((3, 4, 4, 0)), "non-empty"),
        (np.zeros((3, 4, 4, 1), np.int32), "uint8 or floating"),
        (np.full((3, 4, 4, 1), -3.0), r"\[-1, 1\].*\[-3, -3\].*scale or clip"),
        (BYTES.astype(float), r"\[-1, 1\].*\[0, 47\].*127.5"),
        (BYTES / 255.0, r"\[-1, 1\].*\[0, 0.18.*2 \* images - 1"),
        (np.where(BYTES == 17, np.nan, -0.5), "finite.*1 of 3.*first is number 1"),
        (np.where(BYTES == 40, np.inf, -0.5), "finite.*1 of 3.*first is number 2"),
        ([np.zeros((4, 4, 1)), np.zeros((5, 4, 1))], "one shape"),
    ],
)
def test_unfit_images_are_refused(images, message):
    with pytest.raises(ValueError, match=message) as refusal:
        ImageDataset(images)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("labels", "names", "message"),
    [
        ([0, 1], (), "3 integers"),
        ([0.0, 1.0, 2.0], (), "3 integers"),
        ([True, False, True], (), "3 integers"),
        ([[0], [1], [2]], (), "3 integers"),
        ([0, -1, 2], (), "label 1 is -1"),
        ([0, 1, 2], ("a", "b"), "go up to 2.*only 2 names.*give 3"),
        (None, ("a",), "no labels"),
        ([0, 1, 1], ("a", "a"), "different"),
        ([0, 1, 1], "ab", "sequence of texts"),
    ],
)
@pytest.mark.parametrize("kind", [ImageDataset, ArrayDataset])
def test_unfit_labels_and_names_are_refused(kind, labels, names, message):
    with pytest.raises(ValueError, match=message) as refusal:
        kind(np.linspace(-1, 1, 48).reshape(3, 4, 4, 1), labels, names)
    assert "\n" not in str(refusal.value)


def test_names_are_texts():
    with pytest.raises(REFUSED, match="class_names"):
        ImageDataset(BYTES, [0, 1, 1], (0, 1))


@pytest.mark.parametrize(
    ("examples", "message"),
    [
        (np.zeros((0, 2)), "non-empty"),
        (np.zeros(3), "non-empty"),
        (np.zeros((3, 2), np.int32), "floating-point"),
        (np.array([[0.0, np.nan]]), "finite.*first is number 0"),
        ([[0.0], [0.0, 1.0]], "one shape"),
    ],
)
def test_wrong_examples_are_refused(examples, message):
    with pytest.raises(ValueError, match=message):
        ArrayDataset(examples)


def test_lists_and_jax_arrays_are_data_too():
    images = [np.full((2, 2, 1), value) for value in (-1.0, 0.5)]
    for given in (images, jnp.asarray(np.stack(images))):
        data = ImageDataset(given, [1, 0], ["a", "b"])
        assert isinstance(data.images, np.ndarray)
        np.testing.assert_array_equal(data.images, np.stack(images))
        assert data.labels.dtype == np.int32
        assert data.class_names == ("a", "b")


def test_a_data_set_says_what_it_is_in_one_short_line():
    data = ImageDataset(BYTES, [0, 4, 1])
    assert (data.shape, data.num_classes, data.class_names) == ((4, 4, 1), 5, ())
    assert repr(data) == "ImageDataset(3 images of shape (4, 4, 1), uint8, 5 classes)"
    # A part of a data set may lack a class, and has as many classes as the whole.
    named = ImageDataset(BYTES, [0, 2, 1], ("a", "b", "c", "d"))
    assert named.num_classes == 4
    assert "4 classes: a, b, c, …" in repr(named)
    points = ArrayDataset(np.zeros((5, 2), np.float32))
    assert (points.shape, points.num_classes) == ((2,), None)
    assert repr(points) == "ArrayDataset(5 examples of shape (2,), float32, no labels)"


def test_they_are_data_sets_as_training_asks_for():
    assert isinstance(ImageDataset(BYTES), ImagesInMemory)
    points = ArrayDataset(np.zeros((5, 2)))
    assert isinstance(points, Dataset)
    assert not isinstance(points, ImagesInMemory)


def test_importing_the_room_loads_nothing_heavy():
    heavy = ("PIL", "matplotlib", "sklearn", "fontTools", "grain", "orbax", "scipy")
    code = (
        "import sys, numpy, diffusion_eqx.data as data\n"
        "data.ImageDataset(numpy.zeros((2, 4, 4, 1), numpy.uint8), [0, 1])\n"
        f"print([name for name in {heavy} if name in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
