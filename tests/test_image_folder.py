"""A folder of pictures: every kind that people have becomes the right pixels, or is refused by name."""

import io
import logging
import os
import struct
import zlib

import numpy as np
import pytest
from jaxtyping import TypeCheckError
from PIL import Image, ImageCms, ImageFile

from diffusion_eqx.data import ImageFolder, ImagesInMemory

RNG = np.random.default_rng(0)
COLOURS = RNG.integers(0, 256, (6, 4, 3), dtype=np.uint8)
GREYS = COLOURS[..., 0]


def put(path, pixels, **options) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    picture.save(path, **options)


def only(folder, size=(6, 4), **options) -> ImageFolder:
    """The data set of a folder of one picture."""
    data = ImageFolder(folder, size=size, **options)
    assert len(data) == 1
    return data


def png_of_16_bits(numbers: np.ndarray, kind: int) -> bytes:
    """A PNG file of colour type `kind`; Pillow writes no 16-bit colours."""

    def chunk(name: bytes, data: bytes) -> bytes:
        body = name + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    height, width = numbers.shape[:2]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in numbers)
    header = struct.pack(">IIBBBBB", width, height, 16, kind, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


# Classes and order


def test_class_folders_are_labels_sorted_by_bytes(tmp_path):
    for place in ("b/2.png", "b/10.png", "b/deep/er/1.png", "Z/a.png", "a/a.png", "ä/a.png"):
        put(tmp_path / place, RNG.integers(0, 256, (4, 4), dtype=np.uint8))
    data = ImageFolder(tmp_path, size=4)
    assert data.class_names == ("Z", "a", "b", "ä")
    assert data.files == ("Z/a.png", "a/a.png", "b/10.png", "b/2.png", "b/deep/er/1.png", "ä/a.png")
    np.testing.assert_array_equal(data.labels, [0, 1, 2, 2, 2, 3])
    assert data.labels.dtype == np.int32
    assert (data.num_classes, data.shape, len(data)) == (4, (4, 4, 1), 6)
    assert isinstance(data, ImagesInMemory)
    assert data.batches(6, seed=0)[0]["images"].shape == (6, 4, 4, 1)
    assert repr(data) == (
        f"ImageFolder('{tmp_path}', 6 images of shape (4, 4, 1), 4 classes: Z, a, b, …)"
    )
    flat = ImageFolder(tmp_path, size=4, labelled=False)
    assert (flat.labels, flat.num_classes, flat.class_names) == (None, None, ())
    assert flat.files == data.files


def test_a_flat_folder_has_no_labels(tmp_path):
    for name in ("2.png", "10.png"):
        put(tmp_path / name, COLOURS)
    data = ImageFolder(str(tmp_path), size=4)
    assert (data.labels, data.num_classes, data.class_names) == (None, None, ())
    assert data.files == ("10.png", "2.png")
    assert data.shape == (4, 4, 3)
    with pytest.raises(ValueError, match="no class folders"):
        ImageFolder(tmp_path, size=4, labelled=True)


def test_links_are_followed_but_not_in_circles(tmp_path):
    put(tmp_path / "elsewhere" / "1.png", COLOURS)
    root = tmp_path / "pictures"
    root.mkdir()
    (root / "a").symlink_to(tmp_path / "elsewhere")
    assert ImageFolder(root, size=4).files == ("a/1.png",)
    (tmp_path / "elsewhere" / "again").symlink_to(root)
    with pytest.raises(ValueError, match="a link to a folder that holds it"):
        ImageFolder(root, size=4)


# Pixels


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("ending", ["png", "jpg", "tif", "webp"])
def test_exif_orientation_is_applied(orientation, ending, tmp_path):
    upright = np.repeat(np.repeat(np.array([[0, 80], [160, 250], [40, 120]], np.uint8), 8, 0), 8, 1)
    # What a camera stores so that this orientation shows it upright (EXIF 2.32, tag 0x0112).
    stored = {
        1: lambda a: a,
        2: np.fliplr,
        3: lambda a: np.rot90(a, 2),
        4: np.flipud,
        5: np.transpose,
        6: lambda a: np.rot90(a, 1),
        7: lambda a: np.rot90(np.transpose(a), 2),
        8: lambda a: np.rot90(a, -1),
    }[orientation](upright)
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"jpg": {"quality": 98}, "webp": {"lossless": True}}.get(ending, {})
    put(tmp_path / f"p.{ending}", np.ascontiguousarray(stored), exif=exif, **options)
    data = only(tmp_path, (24, 16))
    np.testing.assert_allclose(data.images[0, ..., 0].astype(int), upright, atol=3)
    assert data.report.turned == int(orientation != 1)


@pytest.mark.parametrize(
    ("ending", "pixels"),
    [("png", GREYS), ("png", COLOURS), ("bmp", COLOURS), ("tif", COLOURS), ("gif", GREYS)],
)
def test_plain_pictures_pass_unchanged(ending, pixels, tmp_path):
    put(tmp_path / f"p.{ending}", pixels)
    data = only(tmp_path)
    np.testing.assert_array_equal(data.images[0], pixels.reshape(6, 4, -1))
    assert str(data.report) == "nothing to report"


def test_sixteen_bits_are_scaled_by_65535(tmp_path):
    numbers = RNG.integers(0, 65536, (6, 4), dtype=np.uint16)
    expected = np.round(numbers / 257.0).astype(np.uint8)
    put(tmp_path / "png" / "p.png", numbers)
    put(tmp_path / "tif" / "p.tif", numbers)
    put(tmp_path / "tif32" / "p.tif", numbers.astype(np.int32))
    big = Image.frombytes("I;16B", (4, 6), numbers.astype(">u2").tobytes())
    put(tmp_path / "big" / "p.tif", big)
    for folder in tmp_path.iterdir():
        data = only(folder)
        np.testing.assert_array_equal(data.images[0, ..., 0], expected, err_msg=folder.name)
        assert data.report.reduced == 1


@pytest.mark.parametrize(("kind", "channels"), [(0, 1), (2, 3), (4, 2), (6, 4)])
def test_sixteen_bits_of_colour_are_said(kind, channels, tmp_path):
    numbers = RNG.integers(0, 65536, (6, 4, channels), dtype=np.uint16)
    if channels in (2, 4):
        numbers[..., -1] = 65535
    (tmp_path / "p.png").write_bytes(png_of_16_bits(numbers, kind))
    data = only(tmp_path)
    colours = numbers[..., : 3 if channels > 2 else 1] / 257.0
    np.testing.assert_allclose(data.images[0].astype(float), colours, atol=1.0)
    assert data.report.reduced == 1


def test_transparent_parts_are_composed_before_scaling(tmp_path):
    """Under alpha 0 lies black that nobody sees; none of it may bleed into the white."""
    pixels = np.zeros((8, 8, 4), np.uint8)
    pixels[:, :4] = (200, 40, 40, 255)
    put(tmp_path / "p.png", pixels)
    data = only(tmp_path, 4)
    composed = np.where(pixels[..., 3:] == 255, pixels[..., :3], 255).astype(np.uint8)
    planes = [
        np.asarray(
            Image.fromarray(composed[..., c].astype(np.float32)).resize((4, 4), Image.BICUBIC)
        )
        for c in range(3)
    ]
    expected = np.clip(np.round(np.stack(planes, -1)), 0, 255)
    np.testing.assert_array_equal(data.images[0], expected)
    assert data.images[0, :, 2:, 0].min() >= 250
    assert data.report.composed == 1


@pytest.mark.parametrize("background", ["white", "black", "#204060"])
def test_half_transparent_colours_mix_with_the_background(background, tmp_path):
    behind = {"white": (255,) * 3, "black": (0,) * 3, "#204060": (0x20, 0x40, 0x60)}[background]
    rgba = np.concatenate([COLOURS, np.full((6, 4, 1), 102, np.uint8)], axis=-1)
    put(tmp_path / "rgba" / "p.png", rgba)
    put(tmp_path / "la" / "p.png", rgba[..., [0, 3]])
    mixed = np.round(0.4 * COLOURS + 0.6 * np.array(behind))
    found = only(tmp_path / "rgba", background=background).images[0]
    np.testing.assert_allclose(found, mixed, atol=1)
    grey = only(tmp_path / "la", background=background).images[0]
    assert grey.shape[-1] == (3 if background == "#204060" else 1)
    mixed = np.round(0.4 * GREYS[..., None] + 0.6 * np.array(behind))
    np.testing.assert_allclose(grey, mixed[..., : grey.shape[-1]], atol=1)


def test_transparent_colours_of_a_palette_or_a_key_are_composed(tmp_path):
    palette = Image.fromarray((np.arange(24) % 3).astype(np.uint8).reshape(6, 4), "P")
    palette.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    put(tmp_path / "p" / "p.png", palette, transparency=1)
    put(tmp_path / "rgb" / "p.png", palette.convert("RGB"), transparency=(0, 255, 0))
    put(tmp_path / "gif" / "p.gif", palette, transparency=1)
    colours = np.array([[255, 0, 0], [255, 255, 255], [0, 0, 255]])
    for folder in tmp_path.iterdir():
        found = only(folder).images[0]
        np.testing.assert_array_equal(found, colours[np.arange(24).reshape(6, 4) % 3])
    grey = Image.fromarray((np.arange(24) % 3).astype(np.uint8).reshape(6, 4))
    put(tmp_path / "grey" / "p.png", grey, transparency=1)
    found = only(tmp_path / "grey").images[0, ..., 0]
    np.testing.assert_array_equal(found, np.array([0, 255, 2])[np.arange(24).reshape(6, 4) % 3])


def test_a_key_of_sixteen_bits_is_composed(tmp_path):
    numbers = np.full((6, 4), 257 * 9, np.uint16)
    numbers[0] = 1000
    put(tmp_path / "p.png", numbers, transparency=1000)
    found = only(tmp_path).images[0, ..., 0]
    np.testing.assert_array_equal(found[0], 255)
    np.testing.assert_array_equal(found[1:], 9)


def test_palettes_and_single_bits_are_read(tmp_path):
    bits = (np.arange(24).reshape(6, 4) % 2).astype(bool)
    put(tmp_path / "bits" / "p.png", Image.fromarray(bits))
    found = only(tmp_path / "bits").images[0]
    np.testing.assert_array_equal(found[..., 0], bits * 255)
    palette = Image.fromarray(COLOURS).quantize(24)
    put(tmp_path / "palette" / "p.png", palette)
    np.testing.assert_array_equal(
        only(tmp_path / "palette").images[0], np.asarray(palette.convert("RGB"))
    )


def test_cmyk_is_not_inverted(tmp_path):
    """Pillow writes CMYK JPEGs as Adobe does, inverted."""
    red = Image.new("CMYK", (16, 16), (0, 255, 255, 0))
    put(tmp_path / "jpg" / "p.jpg", red, quality=100)
    put(tmp_path / "tif" / "p.tif", red)
    for folder in tmp_path.iterdir():
        found = only(folder, 16).images[0]
        np.testing.assert_allclose(found.astype(int), np.full((16, 16, 3), [255, 0, 0]), atol=4)


def test_lab_and_ycbcr_are_read(tmp_path):
    # L* = 100 is white, L* = 0 black; a* and b* are 0.
    lab = np.zeros((6, 4, 3), np.uint8)
    lab[:3, :, 0] = 255
    put(tmp_path / "lab" / "p.tif", Image.frombytes("LAB", (4, 6), lab.tobytes()))
    found = only(tmp_path / "lab", channels=3).images[0].astype(int)
    np.testing.assert_allclose(found[:3], 255, atol=2)
    np.testing.assert_allclose(found[3:], 0, atol=2)
    put(tmp_path / "ycc" / "p.tif", Image.fromarray(COLOURS).convert("YCbCr"))
    found = only(tmp_path / "ycc").images[0].astype(int)
    np.testing.assert_allclose(found, COLOURS, atol=3)


def swapped_profile() -> bytes:
    """A colour profile like sRGB whose red and blue have changed places."""
    data = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    for index in range(int.from_bytes(data[128:132], "big")):
        at = 132 + 12 * index
        name = bytes(data[at : at + 4])
        swap = {b"rXYZ": b"bXYZ", b"bXYZ": b"rXYZ"}.get(name, name)
        data[at : at + 4] = swap
    text = bytes(data)
    # Its name must not be that of sRGB.
    return text.replace("sRGB".encode("utf-16-be"), "mine".encode("utf-16-be"))


def test_a_colour_profile_is_applied_unless_told_otherwise(tmp_path):
    profile = swapped_profile()
    put(tmp_path / "p.png", COLOURS, icc_profile=profile)
    data = only(tmp_path)
    np.testing.assert_allclose(data.images[0].astype(int), COLOURS[..., ::-1], atol=2)
    assert data.report.profile == 1
    plain = only(tmp_path, profiles=False)
    np.testing.assert_array_equal(plain.images[0], COLOURS)
    assert plain.report.profile == 0


def test_profiles_of_srgb_or_of_something_else_change_nothing(tmp_path):
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    put(tmp_path / "srgb" / "p.png", COLOURS, icc_profile=srgb)
    put(tmp_path / "grey" / "p.png", GREYS, icc_profile=swapped_profile())
    put(tmp_path / "nonsense" / "p.png", COLOURS, icc_profile=b"nonsense")
    for name, ignored in (("srgb", 0), ("grey", 1), ("nonsense", 1)):
        data = only(tmp_path / name)
        expected = GREYS[..., None] if name == "grey" else COLOURS
        np.testing.assert_array_equal(data.images[0], expected)
        assert (data.report.profile, data.report.profile_ignored) == (0, ignored)


@pytest.mark.parametrize("ending", ["gif", "png", "webp", "tif"])
def test_the_first_of_several_frames_is_taken_and_said(ending, tmp_path):
    frames = [Image.fromarray(np.full((6, 4), value, np.uint8)) for value in (30, 200)]
    options = {"lossless": True} if ending == "webp" else {}
    put(tmp_path / f"p.{ending}", frames[0], save_all=True, append_images=frames[1:], **options)
    data = only(tmp_path)
    np.testing.assert_array_equal(data.images[0], np.full((6, 4, 1), 30))
    assert data.report.first_frame == 1


# Sizes and channels


def test_pictures_are_scaled_to_cover_and_cut_in_the_middle(tmp_path):
    """As Pillow does in two steps, where no rounding of the size in between is needed."""
    wide = RNG.integers(0, 256, (32, 64, 3), dtype=np.uint8)
    put(tmp_path / "wide" / "p.png", wide)
    put(tmp_path / "tall" / "p.png", np.ascontiguousarray(wide.transpose(1, 0, 2)))
    planes = [
        np.asarray(Image.fromarray(wide[..., c].astype(np.float32)).resize((16, 8), Image.BICUBIC))
        for c in range(3)
    ]
    covered = np.clip(np.round(np.stack(planes, -1)), 0, 255)
    np.testing.assert_allclose(only(tmp_path / "wide", 8).images[0], covered[:, 4:12], atol=1)
    found = only(tmp_path / "tall", 8).images[0]
    np.testing.assert_allclose(found, covered[:, 4:12].transpose(1, 0, 2), atol=1)
    assert only(tmp_path / "wide", (8, 16)).shape == (8, 16, 3)


def test_scaling_down_is_anti_aliased(tmp_path):
    """Stripes of one pixel become their mean, not one of their colours."""
    stripes = np.tile(np.array([0, 255], np.uint8), (64, 32))
    put(tmp_path / "p.png", stripes)
    found = only(tmp_path, 8).images[0].astype(int)
    np.testing.assert_allclose(found, 127.5, atol=8)


def test_small_pictures_are_enlarged_and_said(tmp_path):
    put(tmp_path / "p.png", np.full((3, 5), 77, np.uint8))
    data = only(tmp_path, 8)
    np.testing.assert_array_equal(data.images, 77)
    assert data.report.enlarged == 1


def test_channels_are_those_of_the_pictures_or_as_chosen(tmp_path):
    put(tmp_path / "a.png", GREYS)
    put(tmp_path / "b.png", np.repeat(GREYS[..., None], 3, axis=-1))
    grey = ImageFolder(tmp_path, size=(6, 4))
    assert grey.shape == (6, 4, 1)
    np.testing.assert_array_equal(grey.images[0], grey.images[1])
    put(tmp_path / "c.png", COLOURS)
    mixed = ImageFolder(tmp_path, size=(6, 4))
    assert mixed.shape == (6, 4, 3)
    np.testing.assert_array_equal(mixed.images[0], np.repeat(GREYS[..., None], 3, axis=-1))
    forced = ImageFolder(tmp_path, size=(6, 4), channels=1)
    assert forced.shape == (6, 4, 1)
    luma = np.asarray(Image.fromarray(COLOURS).convert("L"))
    np.testing.assert_allclose(forced.images[2, ..., 0].astype(int), luma, atol=1)
    assert ImageFolder(tmp_path, size=4, channels=3).shape == (4, 4, 3)


# What is left out, broken or said


def test_content_decides_and_what_is_no_picture_is_left_out(tmp_path):
    def encoded(kind: str) -> bytes:
        buffer = io.BytesIO()
        Image.fromarray(COLOURS).save(buffer, kind)
        return buffer.getvalue()

    (tmp_path / "a.jpg").write_bytes(encoded("PNG"))
    (tmp_path / "b").write_bytes(encoded("BMP"))
    (tmp_path / "c.JPEG").write_bytes(encoded("JPEG"))
    (tmp_path / "labels.csv").write_text("a.jpg,3\n")
    (tmp_path / ".hidden.png").write_bytes(encoded("PNG"))
    (tmp_path / ".DS_Store").write_bytes(b"\0\0\0\1Bud1")
    (tmp_path / "Thumbs.db").write_bytes(b"x")
    put(tmp_path / "__MACOSX" / "._a.png", COLOURS)
    data = ImageFolder(tmp_path, size=(6, 4))
    assert data.files == ("a.jpg", "b", "c.JPEG")
    assert data.labels is None
    assert data.report.left_out == 5


@pytest.fixture
def broken(tmp_path):
    """A folder with one good picture and each kind of broken one; and their names."""
    put(tmp_path / "good.png", np.arange(6 * 4 * 3, dtype=np.uint8).reshape(6, 4, 3))
    whole = RNG.integers(0, 256, (64, 64, 3), dtype=np.uint8)
    for name in ("cut.png", "cut.jpg"):
        put(tmp_path / name, whole)
        data = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(data[: len(data) // 2])
    (tmp_path / "empty.webp").write_bytes(b"")
    (tmp_path / "text.jpg").write_text("no picture")
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "nowhere.png").symlink_to(tmp_path / "gone.png")
    put(
        tmp_path / "float.tif",
        Image.fromarray(np.linspace(0, 7, 24, dtype=np.float32).reshape(6, 4)),
    )
    put(tmp_path / "wide.tif", Image.fromarray(np.full((6, 4), 70_000, np.int32)))
    huge = struct.pack(">IIBBBBB", 40_000, 40_000, 8, 0, 0, 0, 0)
    body = b"IHDR" + huge
    chunk = struct.pack(">I", len(huge)) + body + struct.pack(">I", zlib.crc32(body))
    (tmp_path / "huge.png").write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk + b"\0\0\0\0IDAT\x35\xaf\x06\x1e"
    )
    names = [p.name for p in tmp_path.iterdir() if p.name != "good.png"]
    return tmp_path, sorted(names)


def test_broken_files_are_all_named_at_once(broken):
    folder, names = broken
    with pytest.raises(ValueError, match=f"{len(names)} of the files") as refusal:
        ImageFolder(folder, size=4, labelled=False)
    lines = str(refusal.value).splitlines()[1:]
    assert [line.split(":")[0].strip() for line in lines] == names
    reasons = {line.split(":")[0].strip(): line for line in lines}
    for name, reason in {
        "cut.jpg": "truncated",
        "empty.webp": "empty",
        "text.jpg": "no picture format",
        "folder.png": "a folder",
        "nowhere.png": "a link to nothing",
        "float.tif": "[0, 7], whose range is not known",
        "wide.tif": "more than 16 bits",
        "huge.png": "exceeds limit",
    }.items():
        assert reason in reasons[name]


def test_broken_files_are_left_out_if_asked_for(broken, monkeypatch, caplog):
    folder, names = broken
    # Somebody else's setting, under which Pillow would fill half a picture with grey.
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    with caplog.at_level(logging.WARNING):
        data = ImageFolder(folder, size=(6, 4), labelled=False, broken="skip")
    assert data.files == ("good.png",)
    assert [line.split(":")[0] for line in data.report.broken] == names
    assert f"{len(names)} broken files left out" in caplog.text
    assert ImageFile.LOAD_TRUNCATED_IMAGES is True


def test_labels_follow_the_pictures_that_are_kept(tmp_path):
    for number, name in enumerate(("a/1.png", "a/2.png", "b/1.png", "b/2.png")):
        put(tmp_path / name, np.full((4, 4), 10 * number, np.uint8))
    (tmp_path / "a" / "1.png").write_bytes(b"")
    data = ImageFolder(tmp_path, size=4, broken="skip")
    assert data.files == ("a/2.png", "b/1.png", "b/2.png")
    np.testing.assert_array_equal(data.labels, [0, 1, 1])
    np.testing.assert_array_equal(data.images[:, 0, 0, 0], [10, 20, 30])


def test_equal_plain_and_lone_pictures_are_counted(tmp_path):
    put(tmp_path / "a" / "1.png", COLOURS)
    put(tmp_path / "a" / "2.bmp", COLOURS)
    put(tmp_path / "b" / "3.png", np.full((6, 4), 9, np.uint8))
    report = ImageFolder(tmp_path, size=(6, 4)).report
    assert (report.duplicates, report.plain, report.lone) == (1, 1, 1)
    assert str(report) == "1 equal to another picture; 1 of one colour only; 1 alone in their class"


@pytest.mark.parametrize(
    ("files", "options", "message"),
    [
        ([], {}, "holds no pictures"),
        (["readme.txt"], {}, "holds no pictures"),
        (
            ["a/1.png", "2.png"],
            {},
            r"1 pictures \(such as 2.png\) beside class folders \(such as a\)",
        ),
        (["a/1.png", "b/readme.txt"], {}, "hold no pictures: b"),
        (["1.png"], {"size": 0}, "size"),
        (["1.png"], {"size": (4, 4, 3)}, "size"),
        (["1.png"], {"size": 4.0}, "size"),
        (["1.png"], {"size": "44"}, "size"),
        (["1.png"], {"channels": 4}, "channels"),
        (["1.png"], {"broken": "ignore"}, "broken"),
        (["1.png"], {"background": "nocolour"}, "nocolour"),
        (["1.png"], {"size": 10**9}, "GB of memory"),
    ],
)
def test_folders_and_options_that_make_no_data_set_are_refused(files, options, message, tmp_path):
    for name in files:
        if name.endswith(".png"):
            put(tmp_path / name, COLOURS)
        else:
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).write_text("no picture")
    # The tests' own type checking may refuse a wrong type before the library does.
    with pytest.raises((ValueError, TypeCheckError), match=message):
        ImageFolder(tmp_path, **{"size": 4, **options})


def test_what_is_no_folder_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="no folder"):
        ImageFolder(tmp_path / "nothing", size=4)
    put(tmp_path / "p.png", COLOURS)
    with pytest.raises(NotADirectoryError, match="is a file"):
        ImageFolder(tmp_path / "p.png", size=4)


@pytest.mark.skipif(os.name != "posix", reason="file names are bytes on POSIX only")
def test_class_names_that_are_no_text_can_still_be_written(tmp_path):
    folder = tmp_path / os.fsdecode(b"caf\xe9")
    put(folder / "1.png", COLOURS)
    (name,) = ImageFolder(tmp_path, size=4).class_names
    assert name.encode() == "caf\N{REPLACEMENT CHARACTER}".encode()


def test_classes_may_stand_in_a_table(tmp_path):
    for number, name in enumerate(("b.png", "deep/a.png", "ä.png")):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.fromarray(np.full((4, 4), 90 * number, np.uint8)).save(tmp_path / name)
    table = tmp_path / "labels.csv"
    table.write_text("file,label\nä.png,dog\nb.png,cat\ndeep/a.png,dog\n", encoding="utf-8")
    data = ImageFolder(tmp_path, size=4, labels=table)
    assert data.class_names == ("cat", "dog")
    assert dict(zip(data.files, data.labels.tolist(), strict=True)) == {
        "b.png": 0,
        "deep/a.png": 1,
        "ä.png": 1,
    }
    for text, message in (
        ("b.png,cat\nä.png,dog\n", "does not name 1 pictures .* such as deep/a.png"),
        ("b.png,cat\nno.png,dog\n", "names 1 pictures that are not below .* such as no.png"),
        ("b.png,cat\nb.png,dog\n", "line 2: b.png is named twice"),
        ("b.png\n", "line 1: a path and a class are wanted; got 'b.png'"),
    ):
        table.write_text(text, encoding="utf-8")
        with pytest.raises(ValueError, match=message):
            ImageFolder(tmp_path, size=4, labels=table)
    with pytest.raises(FileNotFoundError):
        ImageFolder(tmp_path, size=4, labels=tmp_path / "none.csv")
