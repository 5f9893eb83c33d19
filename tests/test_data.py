import gzip
import sys

import numpy as np
import pytest
from PIL import Image

from diffusion_eqx.data import (
    ArrayDataset,
    ImageDataset,
    digits,
    emoji,
    fashion_mnist,
    image_grid,
    save_picture,
    to_bytes,
    to_unit_range,
)


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
    for name in ("t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"):
        (tmp_path / name).write_bytes(gzip.compress(bytes(16 + 784 if "images" in name else 8 + 1)))
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


def test_bytes_and_floats_are_inverse():
    values = np.arange(256, dtype=np.uint8)
    floats = np.asarray(to_unit_range(values))
    assert (floats[0], floats[-1]) == (-1.0, 1.0)
    np.testing.assert_array_equal(to_bytes(floats), values)
    np.testing.assert_array_equal(to_bytes(np.array([-5.0, 5.0])), [0, 255])


def test_batches_are_a_function_of_seed_and_number():
    data = digits()
    first, second = data.batches(64, seed=3), data.batches(64, seed=3)
    for number in (0, 5, 100):
        np.testing.assert_array_equal(first[number]["images"], second[number]["images"])
    assert not np.array_equal(first[0]["images"], data.batches(64, seed=4)[0]["images"])
    assert not np.array_equal(first[0]["images"], first[28]["images"])


def test_an_epoch_shows_every_image_once():
    data = ImageDataset(np.zeros((12, 1, 1, 1), np.uint8), np.arange(12))
    stream = data.batches(4, seed=0)
    epochs = [np.concatenate([stream[3 * e + i]["labels"] for i in range(3)]) for e in range(3)]
    for epoch in epochs:
        np.testing.assert_array_equal(np.sort(epoch), np.arange(12))
    assert not np.array_equal(epochs[0], epochs[1])


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (np.zeros((3, 4, 4)), None, "N, H, W, C"),
        (np.zeros((0, 4, 4, 1)), None, "non-empty"),
        (np.zeros((3, 4, 4, 1), np.int32), None, "uint8 or floating"),
        (np.full((3, 4, 4, 1), 255.0), None, r"\[-1, 1\].*127.5"),
        (np.full((3, 4, 4, 1), np.nan), None, r"\[-1, 1\]"),
        (np.zeros((3, 4, 4, 1)), np.zeros(2, int), "3 integers"),
        (np.zeros((3, 4, 4, 1)), np.zeros(3), "3 integers"),
    ],
)
def test_unfit_data_are_refused(images, labels, message):
    with pytest.raises(ValueError, match=message):
        ImageDataset(images, labels)


def test_grid_places_images_in_reading_order(tmp_path):
    images = np.linspace(-1, 1, 5, dtype=np.float32)[:, None, None, None] * np.ones((1, 2, 3, 1))
    grid = image_grid(images, columns=3, margin=1)
    assert grid.shape == (7, 13, 1)
    np.testing.assert_array_equal(grid[1, [1, 5, 9], 0], [0, 64, 128])
    np.testing.assert_array_equal(grid[4, [1, 5, 9], 0], [191, 255, 255])
    save_picture(tmp_path / "a" / "grid.png", grid, zoom=2)
    assert Image.open(tmp_path / "a" / "grid.png").size == (26, 14)


@pytest.mark.parametrize(
    ("examples", "labels", "message"),
    [
        (np.zeros((0, 2)), None, "non-empty"),
        (np.zeros((3, 2), np.int32), None, "floating-point"),
        (np.array([[0.0, np.nan]]), None, "not finite"),
        (np.zeros((3, 2)), np.zeros(2, np.int32), "labels must be 3"),
    ],
)
def test_wrong_examples_are_refused(examples, labels, message):
    with pytest.raises(ValueError, match=message):
        ArrayDataset(examples, labels)
