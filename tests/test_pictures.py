"""Picture files: what is written is what was given, or it is refused."""

import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import TypeCheckError
from PIL import Image, ImageSequence

from diffusion_eqx.data import image_grid, save_animation, save_picture


def ramp(count: int, channels: int = 1) -> np.ndarray:
    """Images (count, 2, 3, channels) of one value each, from −1 to 1."""
    values = np.linspace(-1, 1, count, dtype=np.float32)[:, None, None, None]
    return values * np.ones((1, 2, 3, channels), np.float32)


def read(path) -> np.ndarray:
    with Image.open(path) as picture:
        return np.asarray(picture)


def test_a_grid_places_images_in_reading_order(tmp_path):
    grid = image_grid(ramp(5), columns=3, margin=1)
    assert grid.shape == (7, 13, 1)
    np.testing.assert_array_equal(grid[1, [1, 5, 9], 0], [0, 64, 128])
    np.testing.assert_array_equal(grid[4, [1, 5, 9], 0], [191, 255, 255])
    save_picture(tmp_path / "a" / "grid.png", grid, zoom=2)
    assert Image.open(tmp_path / "a" / "grid.png").size == (26, 14)
    assert [p.name for p in (tmp_path / "a").iterdir()] == ["grid.png"]


@pytest.mark.parametrize(("count", "rows"), [(1, 1), (4, 2), (5, 2), (16, 4), (17, 4)])
def test_a_grid_is_about_square_unless_told_otherwise(count, rows):
    assert image_grid(ramp(count), margin=0).shape[0] == 2 * rows


@pytest.mark.parametrize(
    "given",
    [ramp(4), list(ramp(4)), jnp.asarray(ramp(4)), ramp(4).astype(np.float64), image_grid(ramp(4))],
    ids=["batch", "list", "jax", "float64", "grid"],
)
def test_a_batch_is_saved_as_its_grid(given, tmp_path):
    save_picture(tmp_path / "p.png", given)
    np.testing.assert_array_equal(read(tmp_path / "p.png"), image_grid(ramp(4))[..., 0])


def test_half_precision_is_saved_too(tmp_path):
    save_picture(tmp_path / "p.png", jnp.asarray(ramp(4), jnp.bfloat16))
    np.testing.assert_allclose(read(tmp_path / "p.png"), image_grid(ramp(4))[..., 0], atol=1)


@pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (2, "LA"), (3, "RGB"), (4, "RGBA")])
def test_each_number_of_channels_has_its_mode(channels, mode, tmp_path):
    image = np.arange(2 * 3 * channels, dtype=np.uint8).reshape(2, 3, channels)
    save_picture(tmp_path / "p.png", image)
    with Image.open(tmp_path / "p.png") as picture:
        assert picture.mode == mode
    np.testing.assert_array_equal(read(tmp_path / "p.png").reshape(image.shape), image)


def test_a_grey_image_needs_no_axis_of_channels(tmp_path):
    save_picture(tmp_path / "p.png", np.array([[-1.0, 1.0]]))
    np.testing.assert_array_equal(read(tmp_path / "p.png"), [[0, 255]])


def test_alpha_is_composed_on_white_where_the_format_has_none(tmp_path):
    image = np.zeros((16, 16, 4), np.uint8)
    image[..., 3] = 51  # A fifth of black on white.
    save_picture(tmp_path / "p.bmp", image)
    np.testing.assert_array_equal(read(tmp_path / "p.bmp"), np.full((16, 16, 3), 204))


def test_contrast_may_differ_from_image_to_image():
    images = np.full((3, 1, 1, 1), 0.5, np.float32)
    grid = image_grid(images, 3, margin=0, contrast=[0.0, 1.0, 2.0])
    np.testing.assert_array_equal(grid[0, :, 0], [128, 191, 255])
    np.testing.assert_array_equal(image_grid(200 * images, 3, margin=0, contrast=0.01), 255)


NAN = np.where(np.arange(4)[:, None, None, None] == 2, np.nan, ramp(4))


@pytest.mark.parametrize(
    ("images", "options", "message"),
    [
        (np.zeros((2, 2, 5)), {}, "1 channel.*got 5"),
        (np.zeros((3, 2, 2, 5)), {}, "1 channel.*got 5"),
        (np.zeros((10, 28, 28)), {}, r"got 28.*images\[\.\.\., None\]"),
        (np.zeros((2, 2, 0)), {}, "at least one image"),
        ([], {}, "at least one image"),
        (np.zeros((0, 2, 2, 1)), {}, "at least one image"),
        (np.zeros(3), {}, r"must be \(N, height"),
        ([np.zeros((2, 2, 1)), np.zeros((3, 2, 1))], {}, "one shape"),
        ([np.zeros((2, 2, 1)), np.zeros((2, 2, 1), np.uint8)], {}, "one type"),
        (np.zeros((2, 2, 1), np.int32), {}, "uint8 or floating point; got int32"),
        (NAN, {}, "finite.*1 of 4.*number 2"),
        (255.0 * (ramp(4) > 0), {}, r"\[-1, 1\].*\[0, 255\].*127.5"),
        (50.0 * ramp(4), {}, r"\[-1, 1\].*\[-50, 50\].*contrast"),
        (ramp(4), {"contrast": [1.0, 2.0, 3.0]}, "one for each of 4"),
        (ramp(4), {"contrast": np.nan}, "finite"),
        (image_grid(ramp(4)), {"contrast": 2.0}, "bytes"),
        (ramp(4), {"columns": 0}, "columns"),
        (ramp(4), {"zoom": 0}, "zoom"),
    ],
)
def test_what_is_no_picture_is_refused_in_one_line(images, options, message, tmp_path):
    with pytest.raises(ValueError, match=message) as refusal:
        save_picture(tmp_path / "deep" / "p.png", images, **options)
    assert "\n" not in str(refusal.value)
    assert not (tmp_path / "deep").exists()


def test_a_zoom_is_a_whole_number(tmp_path):
    # The tests' own type checking may refuse a wrong type before the library does.
    with pytest.raises((ValueError, TypeCheckError), match="zoom"):
        save_picture(tmp_path / "p.png", ramp(4), zoom=1.5)


@pytest.mark.parametrize("name", ["p", "p.xyz", "p.npy"])
def test_unknown_endings_are_refused(name, tmp_path):
    with pytest.raises(ValueError, match=r"take \.png"):
        save_picture(tmp_path / name, ramp(4))


def frames_of(path) -> tuple[list[np.ndarray], list[int]]:
    with Image.open(path) as animation:
        found = [
            (np.asarray(f.convert("L")), f.info["duration"])
            for f in ImageSequence.Iterator(animation)
        ]
    return [frame for frame, _ in found], [int(duration) for _, duration in found]


@pytest.mark.parametrize("ending", ["gif", "png"])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_an_animation_holds_its_frames(ending, channels, tmp_path):
    snapshots = np.stack([np.full((4, 8, 8, channels), v, np.float32) for v in (-1, 0, 0.5)])
    snapshots[..., channels - 1 :] = 1.0 if channels in (2, 4) else snapshots[..., channels - 1 :]
    path = tmp_path / f"a.{ending}"
    save_animation(path, jnp.asarray(snapshots), seconds=0.6, columns=2)
    frames, durations = frames_of(path)
    assert durations == [200, 200, 1200]
    for found, snapshot in zip(frames, snapshots, strict=True):
        np.testing.assert_allclose(found, image_grid(snapshot, 2)[..., 0], atol=1)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize(
    ("name", "frames", "options", "message"),
    [
        ("a.gif", [], {}, "at least one frame"),
        ("a.jpg", [ramp(4)], {}, r"\.gif"),
        ("a.gif", [ramp(4), ramp(9)], {}, "one shape"),
        ("a.gif", [ramp(4, 5)], {}, "got 5"),
        ("a.gif", [NAN], {}, "finite"),
        ("a.gif", [ramp(4)], {"seconds": 0.0}, "seconds"),
        ("a.gif", [ramp(4)], {"zoom": -1}, "zoom"),
    ],
)
def test_what_is_no_animation_is_refused(name, frames, options, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        save_animation(tmp_path / name, frames, **options)
    assert not list(tmp_path.iterdir())


def test_a_file_that_cannot_be_written_leaves_nothing(tmp_path, monkeypatch):
    def fail(self, path, *args, **kwargs):
        path.write_bytes(b"half")
        raise OSError("no space left")

    monkeypatch.setattr(Image.Image, "save", fail)
    with pytest.raises(OSError, match="no space"):
        save_picture(tmp_path / "p.png", ramp(4))
    assert not list(tmp_path.iterdir())
