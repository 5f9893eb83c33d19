"""What people give `diffusion-eqx train` by mistake: one message each, before anything is trained."""

import re
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import yaml
from PIL import Image

from diffusion_eqx.cli import main

PIXELS = np.random.default_rng(0).integers(0, 256, (12, 8, 8, 3), np.uint8)
TINY = [
    *("--model.input-shape", "8", "8", "1", "--model.backbone.hidden-dims", "8"),
    *("--model.backbone.time-embedding-dim", "8", "--model.backbone.num-classes", "10"),
    *("--model.backbone.attention-resolutions", "8", "--training.steps", "2"),
]


@pytest.fixture(autouse=True)
def _nothing_is_trained(monkeypatch):
    def step(*arguments, **options):
        raise AssertionError("a step was made")

    monkeypatch.setattr("diffusion_eqx.training.loop.train_step", step)


def refused(arguments: list[str], capsys) -> str:
    """The one message with which a command fails."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as exit:
        main(["train", *arguments])
    assert exit.value.code not in (0, None)
    said = capsys.readouterr().err
    assert "Traceback" not in said
    # One line of ours, or one error of the parser of options.
    assert len(re.findall(r"^diffusion-eqx: |Error parsing ", said, re.M)) == 1, said
    return " ".join(re.sub(r"[│╭╮╰╯─]", " ", said).split())


def pictures(folder: Path, names: tuple[str, ...] = ("a/1.png", "a/2.png", "b/1.png")) -> Path:
    for number, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(PIXELS[number]).save(path)
    return folder


def huge_png() -> bytes:
    """The header of 40,000 x 25,000 pixels; a file need not hold what it promises."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        )

    header = struct.pack(">IIBBBBB", 40_000, 25_000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0"))


# Each makes what it needs in a folder, and gives arguments; the message says what was wrong and what to do.
Case = Callable[[Path], list[str]]
CASES: dict[str, tuple[Case, str]] = {}


def case(message: str) -> Callable[[Case], Case]:
    def add(make: Case) -> Case:
        CASES[make.__name__.replace("_", " ")] = (make, message)
        return make

    return add


def data(path: object, *more: str) -> list[str]:
    return ["-o", "run", "--data", str(path), *more]


@case(r"unknown data set 'nowhere/pictures'.*no file or folder.*choose fashion-mnist, digits")
def missing_path(folder):
    return data("nowhere/pictures")


@case(r"holds no pictures")
def empty_folder(folder):
    (folder / "empty").mkdir()
    return data(folder / "empty")


@case(
    r"batch-size 64 is more than the 1 images of .*: give more images, or a batch size of at most 1"
)
def one_image(folder):
    return data(pictures(folder / "one", ("1.png",)))


@case(r"batch-size 9 is more than the 3 images of .*at most 3")
def batch_larger_than_the_data(folder):
    return data(pictures(folder / "few"), "--training.batch-size", "9")


@case(r"labels must be 0 or more; label 2 is -1.*Leave such examples out")
def label_below_zero(folder):
    np.savez(folder / "x.npz", images=PIXELS, labels=[0, 1, -1, *range(9)])
    return data(folder / "x.npz")


@case(
    r"labels go up to 11, and the model's classes to 9.*num_classes=12.*leave out the option of --model"
)
def label_of_no_class_of_the_model(folder):
    np.savez(folder / "x.npz", images=PIXELS[..., :1], labels=range(12))
    return data(folder / "x.npz", *TINY, "--training.batch-size", "4")


@case(r"labels must be 12 integers, one for each example; got int64 of shape \(5,\)")
def fewer_labels_than_images(folder):
    np.savez(folder / "x.npz", images=PIXELS, labels=range(5))
    return data(folder / "x.npz")


@case(r"cannot write into its folder /proc/run .*: choose another one, or make it writable")
def folder_that_cannot_be_written(folder):
    return ["-o", "/proc/run", "--data", "digits", *TINY]


@case(r"notes\.txt is a file; the run needs a folder")
def out_that_is_a_file(folder):
    (folder / "notes.txt").write_text("hello")
    return ["-o", str(folder / "notes.txt"), "--data", "digits", *TINY]


@case(r"--out is the folder of the run.*write e\.g\. --out model")
def out_that_is_a_model(folder):
    return ["-o", "model.safetensors", "--data", "digits"]


@case(r"'--epochs' is no option here; see --help")
def unknown_option(folder):
    return data("digits", "--epochs", "3")


@case(r"'--training\.step' is no option here; did you mean --training\.steps\?")
def option_that_is_nearly_one(folder):
    return data("digits", "--training.step", "3")


@case(r"Error parsing --training\.steps: invalid literal for int\(\) with base 10: 'many'")
def word_for_a_number(folder):
    return data("digits", "--training.steps", "many")


@case(r"training has options that there are not: stepps .did you mean steps")
def unknown_option_in_the_file(folder):
    path = folder / "options.yaml"
    path.write_text(yaml.safe_dump({"out": "run", "training": {"stepps": 3}}))
    return [str(path)]


@case(r"options\.yaml is no YAML")
def file_that_is_no_yaml(folder):
    (folder / "options.yaml").write_text("training: [1, 2")
    return [str(folder / "options.yaml"), "-o", "run"]


@case(r"images must be finite numbers; 1 of 12 hold NaN or infinity, the first is number 7")
def nan_in_an_array(folder):
    images = PIXELS / np.float32(127.5) - 1.0
    images[7, 2, 3] = np.nan
    np.save(folder / "x.npy", images)
    return data(folder / "x.npy")


@case(r"must lie in \[-1, 1\]; these lie in \[0, .*: scale them by images / 127\.5 - 1")
def floats_that_nobody_scaled(folder):
    np.save(folder / "x.npy", PIXELS.astype(np.float32))
    return data(folder / "x.npy")


@case(r"2 of the files in .* are broken; mend or remove them, or leave them out by --broken skip: ")
def broken_pictures(folder):
    place = pictures(folder / "some")
    for name in ("a/1.png", "b/1.png"):
        (place / name).write_bytes((place / name).read_bytes()[:-60])
    return data(place)


@case(r"a/note\.jpg: no picture format")
def text_named_as_a_picture(folder):
    place = pictures(folder / "some")
    (place / "a" / "note.jpg").write_text("dear diary")
    return data(place)


@case(r"a/huge\.png: .*1000000000 pixels")
def picture_of_a_billion_pixels(folder):
    place = pictures(folder / "some")
    (place / "a" / "huge.png").write_bytes(huge_png())
    return data(place)


@case(
    r"readme\.md is none of what is read: a folder or \.zip of pictures, \.npy, \.npz, or an idx file"
)
def file_for_a_folder(folder):
    (folder / "readme.md").write_text("# Pictures")
    return data(folder / "readme.md")


@case(r"x\.npz holds pixels, and none of images.*np\.savez\(path, images=…, labels=…\)")
def archive_without_images(folder):
    np.savez(folder / "x.npz", pixels=PIXELS)
    return data(folder / "x.npz")


@case(r"x\.npy cannot be read as arrays of NumPy")
def array_file_that_is_cut_off(folder):
    np.save(folder / "x.npy", PIXELS)
    (folder / "x.npy").write_bytes((folder / "x.npy").read_bytes()[:-500])
    return data(folder / "x.npy")


@case(r"1 pictures \(such as 1\.png\) beside class folders \(such as a\); move each picture")
def pictures_beside_classes(folder):
    return data(pictures(folder / "some", ("1.png", "a/1.png")))


@case(r"hold no pictures: b; fill or remove them")
def class_without_pictures(folder):
    place = pictures(folder / "some", ("a/1.png",))
    (place / "b").mkdir()
    return data(place)


@case(
    r"table\.csv does not name 1 pictures below .*, such as b/1\.png; name each, or move them away"
)
def table_that_misses_pictures(folder):
    place = pictures(folder / "some")
    (folder / "table.csv").write_text("a/1.png,cat\na/2.png,dog\n")
    return data(place, "--labels", str(folder / "table.csv"))


@case(r"batch_size=10 cannot be cut into accumulation=3 equal parts")
def batch_that_cannot_be_cut(folder):
    return data("digits", "--training.batch-size", "10", "--training.accumulation", "3")


@case(r"unknown --kind 'gan'; choose one of ddim, ddpm, score, dit, latent")
def unknown_kind(folder):
    return data("digits", "--kind", "gan")


@case(r"--size is for pictures, .* and digits has images and labels of its own: leave it out")
def size_of_packaged_data(folder):
    return data("digits", "--size", "16", "16")


@case(r"--size is for pictures, .*x\.npy has images and labels of its own: leave it out")
def size_of_an_array(folder):
    np.save(folder / "x.npy", PIXELS)
    return data(folder / "x.npy", "--size", "16", "16")


@case(r"--labels is for pictures, .* and digits has images and labels of its own: leave it out")
def table_of_packaged_data(folder):
    return data("digits", "--labels", "table.csv")


@case(r"--broken is for pictures, .* and digits has")
def broken_of_packaged_data(folder):
    return data("digits", "--broken", "skip")


@case(r"--broken is refuse or skip; got 'ignore'")
def broken_that_is_neither(folder):
    return data(pictures(folder / "some"), "--broken", "ignore")


@case(r"is read from where it is: leave out --data-dir")
def folder_of_a_folder(folder):
    return data(pictures(folder / "some"), "--data-dir", str(folder))


@case(r"train-images-idx3-ubyte\.gz is missing; the folder must hold")
def folder_without_the_packaged_data(folder):
    return data("fashion-mnist", "--data-dir", str(folder))


@case(r"other\.safetensors")
def weights_that_are_not_there(folder):
    return data("digits", *TINY, "--init-from", str(folder / "other.safetensors"))


@case(r"--autoencoder-steps is for --kind latent; leave it out")
def steps_of_no_autoencoder(folder):
    return data("digits", "--autoencoder-steps", "3")


@pytest.mark.parametrize("name", CASES)
def test_what_is_wrong_is_said_in_one_message(name, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make, message = CASES[name]
    said = refused(make(tmp_path), capsys)
    assert re.search(message, said), said
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_other_settings_are_no_resumption(tmp_path, capsys, monkeypatch):
    def interrupted(*arguments, **options):
        raise KeyboardInterrupt("on purpose")

    command = ["-o", str(tmp_path / "run"), "--data", "digits", *TINY]
    with monkeypatch.context() as patch:
        patch.setattr("diffusion_eqx.training.model.fit", interrupted)
        assert "on purpose" in refused(command, capsys)
    said = refused([*command, "--training.seed", "5"], capsys)
    assert re.search(r"holds a run of other settings: .*training\.seed was 0, is 5", said)
    assert "Give the same settings to continue it; choose another folder" in said
    assert "start anew with --overwrite, which deletes it" in said


def test_a_disk_without_room_is_said_before_training(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=1000))
    said = refused(["-o", str(tmp_path / "run"), "--data", "digits", *TINY], capsys)
    assert re.search(r"0\.0 MB free, and a checkpoint needs .* MB .*: make room, or choose", said)


def test_weights_of_another_network_begin_nothing(tmp_path, capsys):
    import jax

    from diffusion_eqx.config import DDIMConfig, UNetBackboneConfig
    from diffusion_eqx.models import DDIMModel, save_model

    backbone = UNetBackboneConfig(
        hidden_dims=(4,), time_embedding_dim=4, attention_resolutions=(8,)
    )
    model = DDIMModel(DDIMConfig(input_shape=(8, 8, 1), backbone=backbone), key=jax.random.key(0))
    save_model(tmp_path / "other.safetensors", model)
    arguments = ["-o", str(tmp_path / "run"), "--data", "digits", *TINY]
    said = refused([*arguments, "--init-from", str(tmp_path / "other.safetensors")], capsys)
    assert "networks" in said
    assert "different layers" in said or "not alike" in said
    assert not (tmp_path / "run").exists()
