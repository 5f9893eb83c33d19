"""The command line evaluates a model, a folder of pictures and an array of images."""

import json
import shutil

import equinox as eqx
import jax
import numpy as np
import pytest
from PIL import Image

from diffusion_eqx.cli import main
from diffusion_eqx.config import NoisyClassifierConfig
from diffusion_eqx.data import digits, to_bytes
from diffusion_eqx.evaluation import (
    ClassifierFeatures,
    CleanClassifier,
    bits_per_dim,
    extract,
    frechet_distance,
    judge,
    load_reference,
)
from diffusion_eqx.models import (
    DDIMModel,
    NoisyClassifier,
    load_model,
    save_classifier,
    save_model,
)

CONFIG = NoisyClassifierConfig(input_shape=(8, 8, 1), hidden_dims=(8,), time_embedding_dim=8)
DIGITS = digits()


def noisy_classifier() -> NoisyClassifier:
    """One that decides: a fresh one has zeros in its last layer, this one random numbers."""
    noisy = eqx.nn.inference_mode(NoisyClassifier(CONFIG, key=jax.random.key(0)))
    weight = jax.random.normal(jax.random.key(1), noisy.out.weight.shape)
    return eqx.tree_at(lambda c: c.out.weight, noisy, weight)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A classifier, and digits as an array and as pictures."""
    folder = tmp_path_factory.mktemp("evaluate")
    save_classifier(folder / "classifier.safetensors", noisy_classifier())
    np.save(folder / "digits.npy", DIGITS.images[:60])
    for number in range(60):
        place = folder / "pictures" / str(DIGITS.labels[number])
        place.mkdir(parents=True, exist_ok=True)
        picture = Image.fromarray(to_bytes(DIGITS.images[number, ..., 0]))
        picture.save(place / f"{number}.png")
    return folder


@pytest.fixture(scope="module")
def judge_file(folder):
    return str(folder / "classifier.safetensors")


def evaluated(*arguments: object) -> None:
    main(["evaluate", *map(str, arguments)])


def refused(capsys, *arguments: object) -> str:
    with pytest.raises(SystemExit) as exit:
        evaluated(*arguments)
    assert exit.value.code == 2
    return capsys.readouterr().err


@pytest.fixture(scope="module")
def model_file(folder):
    """A tiny model of digits, trained for a few steps by the command line."""
    size = ("--model.input-shape", "8", "8", "1", "--model.backbone.hidden-dims", "8")
    training = ("--training.steps", "3", "--training.batch-size", "8", "--training.log-every", "3")
    preview = ("--training.preview-every", "0", "--model.backbone.attention-resolutions", "8")
    out = folder / "run"
    main(["train", "-o", str(out), "--data", "digits", *size, *training, *preview])
    return out / "model.safetensors"


@pytest.mark.slow
def test_a_model_is_drawn_from_as_sample_does_and_judged(
    model_file, folder, judge_file, tmp_path, capsys
):
    reference, out = tmp_path / "digits.safetensors", tmp_path / "deep" / "figures.json"
    common = ("--classifier", judge_file, "--reference", reference, "--data", "digits")
    drawing = ("--count", 20, "--steps", 2, "--guidance", 2.0, "--seed", 3)
    evaluated(model_file, *common, *drawing, "--out", out)
    shown = capsys.readouterr()
    assert "wrote" in shown.err
    assert "coverage" in shown.out
    said = json.loads(out.read_text())
    assert said["drawing"] == {"sampler": None, "steps": 2, "guidance": 2.0, "seed": 3}
    assert said["images"]["count"] == 20
    assert said["reference"]["count"] == 1797
    # The same by `sample` and by hand.
    array = tmp_path / "drawn.npy"
    sampled = ("-n", "20", "--steps", "2", "--guidance", "cfg", "--guidance-scale", "2")
    main(["sample", str(model_file), "-o", str(array), *sampled, "--seed", "3"])
    images, labels = np.load(array), np.arange(20) % 10
    features, classes = judge(CleanClassifier(noisy_classifier()), images)
    real = extract(ClassifierFeatures(CleanClassifier(noisy_classifier())), DIGITS)
    measures = said["measures"]
    assert measures["frechet_distance"] == pytest.approx(frechet_distance(features, real), rel=1e-4)
    assert measures["accuracy"] == pytest.approx(np.mean(classes == labels))
    # The second time the reference is read, not written.
    before = reference.stat().st_mtime_ns
    evaluated(model_file, *common, *drawing, "--out", tmp_path / "again.json")
    assert reference.stat().st_mtime_ns == before
    assert json.loads((tmp_path / "again.json").read_text())["measures"] == measures


def test_pictures_and_arrays_have_the_figures_of_their_images(folder, judge_file, tmp_path):
    found = {}
    for name in ("pictures", "digits.npy"):
        out = tmp_path / f"{name}.json"
        evaluated(folder / name, "--data", "digits", "--classifier", judge_file, "--out", out)
        found[name] = json.loads(out.read_text())["measures"]
    rows = extract(ClassifierFeatures(CleanClassifier(noisy_classifier())), DIGITS)
    for measures in found.values():
        # Pictures are rounded to bytes.
        assert measures["frechet_distance"] == pytest.approx(
            frechet_distance(rows[:60], rows), rel=0.01
        )
        assert min(measures["precision"], measures["recall"], measures["coverage"]) > 0.8
    # The folders of the pictures are classes.
    classes = judge(CleanClassifier(noisy_classifier()), to_bytes(DIGITS.images[:60]))[1]
    assert found["pictures"]["accuracy"] == np.mean(classes == DIGITS.labels[:60])
    assert "accuracy" not in found["digits.npy"]


@pytest.mark.slow
def test_what_does_not_fit_is_said_before_a_classifier_is_trained(
    model_file, folder, judge_file, tmp_path, capsys, monkeypatch
):
    reference = tmp_path / "digits.safetensors"
    given = ("--data", folder / "pictures", "--size", 8, "--classifier", judge_file)
    evaluated(folder / "digits.npy", *given, "--reference", reference)
    capsys.readouterr()
    monkeypatch.setattr("diffusion_eqx.evaluation.train_classifier", None)
    said = refused(capsys, folder / "pictures", "--data", "digits", "--reference", reference)
    assert "On the command line: give the --data, --size and --classifier" in said
    few = tmp_path / "few.npz"
    np.savez(few, images=to_bytes(DIGITS.images[:20]), labels=DIGITS.labels[:20] % 3)
    said = refused(capsys, model_file, "--data", few)
    assert "knows 10 classes" in said


def test_pictures_are_read_at_the_size_of_the_array_that_is_judged(folder, judge_file, tmp_path):
    out = tmp_path / "figures.json"
    given = ("--data", folder / "pictures", "--classifier", judge_file)
    evaluated(folder / "digits.npy", *given, "--out", out)
    assert json.loads(out.read_text())["reference"]["preprocessing"]["image_shape"] == [8, 8, 1]


@pytest.mark.slow
def test_guidance_that_acts_in_no_step_is_said(model_file, judge_file, tmp_path, capsys):
    """Guidance of a model that the command trains acts from time 0 to 0.95; the first step is at 1."""
    judged = ("--data", "digits", "--classifier", judge_file, "--count", 6, "--guidance", 2)
    idle = "between the times 0 and 0.95, and none of the 1 steps begins there: it has no effect"
    evaluated(model_file, *judged, "--steps", 1)
    assert idle in capsys.readouterr().err
    evaluated(model_file, *judged, "--steps", 2)
    assert "no effect" not in capsys.readouterr().err
    picture = tmp_path / "drawn.png"
    drawn = ["sample", str(model_file), "-o", str(picture), "-n", "2", "--zoom", "3"]
    main([*drawn, "--steps", "1", "--guidance-scale", "2"])
    assert idle in capsys.readouterr().err
    with Image.open(picture) as found:
        assert found.size == (3 * 22, 3 * 12)
    main([*drawn, "--steps", "2", "--guidance", "apg"])
    main([*drawn, "--steps", "1"])
    assert "no effect" not in capsys.readouterr().err


@pytest.mark.slow
def test_bits_are_those_of_real_images(model_file, judge_file, tmp_path):
    out = tmp_path / "figures.json"
    drawing = ("--data", "digits", "--classifier", judge_file, "--count", 6, "--steps", 1)
    evaluated(model_file, *drawing, "--bits-count", 5, "--bits-steps", 2, "--seed", 4, "--out", out)
    measures = json.loads(out.read_text())["measures"]
    rows = np.random.default_rng(4).permutation(len(DIGITS))[:5]
    found = bits_per_dim(
        load_model(model_file),
        DIGITS.images[rows],
        labels=DIGITS.labels[rows],
        key=jax.random.key(4),
        steps=2,
    )
    assert measures["bits_per_dim"] == pytest.approx(float(found.mean), rel=1e-5)
    assert measures["bits_error"] == pytest.approx(float(found.standard_error), rel=1e-3)


def test_broken_pictures_are_left_out_if_asked_for(folder, judge_file, tmp_path, capsys):
    real = tmp_path / "real"
    shutil.copytree(folder / "pictures", real)
    (real / "0" / "broken.png").write_bytes(b"no picture")
    common = (folder / "digits.npy", "--data", real, "--size", 8, 8, "--classifier", judge_file)
    assert "--broken skip" in refused(capsys, *common)
    evaluated(*common, "--broken", "skip")
    assert "60 of" in capsys.readouterr().out.replace("\n", " ")


def test_folders_that_are_no_classes_are_said(folder, judge_file, tmp_path, capsys):
    shutil.copytree(folder / "pictures", tmp_path / "pictures")
    (tmp_path / "pictures" / "3").rename(tmp_path / "pictures" / "three")
    out = tmp_path / "out.json"
    common = ("--data", "digits", "--classifier", judge_file, "--out", out)
    evaluated(tmp_path / "pictures", *common)
    assert "'three' is no class of digits" in capsys.readouterr().err
    assert "accuracy" not in json.loads(out.read_text())["measures"]


def test_a_reference_of_others_is_refused(folder, judge_file, tmp_path, capsys):
    reference = tmp_path / "reference.safetensors"
    common = (folder / "digits.npy", "--data", "digits", "--reference", reference)
    evaluated(*common, "--classifier", judge_file)
    assert load_reference(reference).count == 1797
    other = tmp_path / "other.safetensors"
    save_classifier(other, NoisyClassifier(CONFIG, key=jax.random.key(5)))
    capsys.readouterr()
    message = refused(capsys, *common, "--classifier", other)
    assert "holds features of 'classifier" in message
    assert "name another --reference" in message
    pictures = (folder / "digits.npy", "--data", folder / "pictures", "--reference", reference)
    message = refused(capsys, *pictures, "--classifier", judge_file)
    assert "made of other images" in message
    damaged = bytearray(reference.read_bytes())
    damaged[-100] ^= 4
    reference.write_bytes(bytes(damaged))
    assert "is damaged" in refused(capsys, *common, "--classifier", judge_file)


def test_without_a_classifier_one_is_trained_always_alike(folder, tmp_path, monkeypatch, capsys):
    """Trained shortly here; the second run finds its own name in the reference."""
    from diffusion_eqx import evaluation

    whole, epochs = evaluation.train_classifier, [1, 1, 2]
    monkeypatch.setattr(
        evaluation,
        "train_classifier",
        lambda data, **options: whole(data, **options | {"epochs": epochs.pop(0)}),
    )
    reference = tmp_path / "reference.safetensors"
    for _ in range(2):
        evaluated(folder / "digits.npy", "--data", "digits", "--reference", reference)
        assert "training a classifier of digits" in capsys.readouterr().err
    message = refused(capsys, folder / "digits.npy", "--data", "digits", "--reference", reference)
    assert "differ between machines" in message


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{}/digits.npy", "--data", "digitz"], "unknown data set 'digitz'"),
        (["{}/pictures", "--data", "{}/pictures"], "Give --size HEIGHT WIDTH"),
        (["{}/digits.npy", "--data", "digits", "--out", "a.txt"], "--out must end in .json"),
        (["{}/digits.npy", "--data", "digits", "--seed", "-1"], "--seed must be in 0"),
        (["{}/digits.npy", "--data", "digits", "--steps", "5"], "--steps is for drawing"),
        (["{}/digits.npy", "--data", "digits", "--eta", "1"], "--eta is for drawing"),
        (["{}/digits.npy", "--data", "digits", "--bits-count", "9"], "--bits-count is for drawing"),
        (["{}/digits.npy", "--data", "digits", "--classifier", "none"], "there is no"),
        (["{}/none", "--data", "digits"], "there is no model file"),
        (["{}/classifier.safetensors", "--data", "digits"], "load_classifier reads it"),
    ],
)
def test_wrong_input_is_refused(arguments, message, folder, capsys):
    assert message in refused(capsys, *(a.format(folder) for a in arguments))


def test_what_a_model_cannot_do_is_refused(small_config, judge_file, tmp_path, capsys):
    path = tmp_path / "model.safetensors"
    save_model(path, DDIMModel(small_config, key=jax.random.key(0)))
    common = (path, "--classifier", judge_file)
    assert "at least 6" in refused(capsys, *common, "--data", "digits", "--count", 5)
    assert "at least 2" in refused(capsys, *common, "--data", "digits", "--bits-count", 1)
    assert "nosuch" in refused(capsys, *common, "--data", "digits", "--sampler", "nosuch")
    assert "no option 'etta'" in refused(capsys, *common, "--data", "digits", "--etta", 1)
    message = refused(capsys, *common, "--data", "emoji")
    assert "draws images of shape (8, 8, 1); those of emoji have shape (32, 32, 3)" in message
