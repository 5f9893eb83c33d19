"""Data sets from files: each format gives what was written, and says what is wrong with it."""

import gzip
import zipfile

import numpy as np
import pytest
from PIL import Image

from diffusion_eqx.data import ArrayDataset, ImageDataset, ImageFolder, open_dataset, read_idx

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (6, 5, 4), dtype=np.uint8)


def idx(array: np.ndarray) -> bytes:
    sizes = b"".join(int(size).to_bytes(4, "big") for size in array.shape)
    return b"\0\0\x08" + bytes([array.ndim]) + sizes + array.tobytes()


def test_arrays_of_numpy(tmp_path):
    path = tmp_path / "x.npy"
    np.save(path, PIXELS)
    data = open_dataset(path)
    assert isinstance(data, ImageDataset)
    np.testing.assert_array_equal(data.images[..., 0], PIXELS)
    # The pixels stay on the disk until they are used.
    assert isinstance(data.images.base if data.images.base is not None else data.images, np.memmap)
    points = RNG.normal(size=(9, 2)).astype(np.float32)
    np.save(path, points)
    data = open_dataset(path)
    assert isinstance(data, ArrayDataset)
    np.testing.assert_array_equal(data.examples, points)


@pytest.mark.parametrize(
    "names", [("images", "labels"), ("x_train", "y_train"), ("arr_0", "arr_1")]
)
def test_archives_of_arrays(names, tmp_path):
    path = tmp_path / "x.npz"
    labels = np.asarray([[0], [1], [2], [0], [1], [2]])
    np.savez(path, **dict(zip(names, (PIXELS[..., None], labels), strict=True)))
    data = open_dataset(path)
    np.testing.assert_array_equal(data.images[..., 0], PIXELS)
    np.testing.assert_array_equal(data.labels, labels[:, 0])
    np.savez(path, images=PIXELS, labels=labels, class_names=np.asarray(["a", "b", "c"]))
    assert open_dataset(path).class_names == ("a", "b", "c")


@pytest.mark.parametrize("pack", [gzip.compress, bytes])
def test_idx_files_with_their_labels(pack, tmp_path):
    ending = ".gz" if pack is gzip.compress else ""
    images = tmp_path / f"train-images-idx3-ubyte{ending}"
    images.write_bytes(pack(idx(PIXELS)))
    assert open_dataset(images).labels is None
    labels = np.arange(6, dtype=np.uint8) % 2
    (tmp_path / f"train-labels-idx1-ubyte{ending}").write_bytes(pack(idx(labels)))
    data = open_dataset(images)
    np.testing.assert_array_equal(data.images[..., 0], PIXELS)
    np.testing.assert_array_equal(data.labels, labels)


def test_idx_files_that_are_none_or_cut_off_are_refused(tmp_path):
    path = tmp_path / "images-idx3-ubyte"
    for content, message in (
        (b"PNG", "is no idx file"),
        (idx(PIXELS)[:-1], r"cut off: a header of sizes \(6, 5, 4\) asks for 120 bytes, and 119"),
        (idx(PIXELS)[:10], "cut off"),
        (b"\0\0\x0d\x01\0\0\0\1abcd", "idx type 0xd"),
        (gzip.compress(idx(PIXELS))[:-9], "is damaged"),
    ):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=message):
            read_idx(path)


@pytest.mark.parametrize("wrapped", [False, True])
def test_archives_of_pictures(wrapped, tmp_path):
    path = tmp_path / "pictures.zip"
    prefix = "pictures/" if wrapped else ""
    with zipfile.ZipFile(path, "w") as archive:
        for number, name in enumerate(("cat/a.png", "cat/b.png", "dog/ä.png")):
            file = tmp_path / "one.png"
            Image.fromarray(np.full((8, 8, 3), 80 * number, np.uint8)).save(file)
            archive.write(file, prefix + name)
        archive.writestr("__MACOSX/._a.png", b"x")
    data = open_dataset(path, size=4)
    assert isinstance(data, ImageFolder)
    assert data.class_names == ("cat", "dog")
    np.testing.assert_array_equal(data.labels, [0, 0, 1])
    np.testing.assert_array_equal(data.images[:, 0, 0, 0], [0, 80, 160])


def test_a_folder_of_pictures(tmp_path):
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / "a.png")
    assert open_dataset(tmp_path, size=4, channels=3).shape == (4, 4, 3)


def test_what_cannot_be_read_is_said(tmp_path):
    def refused(name, content, message, **options):
        path = tmp_path / name
        path.write_bytes(content)
        with pytest.raises(ValueError, match=message):
            open_dataset(path, **options)

    with pytest.raises(FileNotFoundError, match="there is no file or folder"):
        open_dataset(tmp_path / "none.npy")
    refused("x.npy", b"no", "cannot be read as arrays of NumPy")
    refused("x.npz", b"no", "cannot be read as arrays of NumPy")
    refused("x.zip", b"no", "cannot be unpacked", size=4)
    refused("y.zip", b"no", "give the size")
    refused("x.csv", b"no", "is none of what is read")
    np.savez(tmp_path / "z.npz", pixels=PIXELS)
    with pytest.raises(ValueError, match=r"holds pixels, and none of images"):
        open_dataset(tmp_path / "z.npz")
    np.save(tmp_path / "a.npy", PIXELS)
    with pytest.raises(ValueError, match="leave out the size"):
        open_dataset(tmp_path / "a.npy", size=4)
