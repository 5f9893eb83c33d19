"""Classes go by their names: in what begins with another model, in what judges it, and in what is drawn."""

import jax
import numpy as np
import pytest

from diffusion_eqx.cli import main
from diffusion_eqx.config import DDIMConfig, UNetBackboneConfig
from diffusion_eqx.data import save_picture
from diffusion_eqx.models import DDIMModel, save_model
from diffusion_eqx.training import begin_from

KNOWN = ("circles", "gradients", "stripes")


def model(classes: int) -> DDIMModel:
    backbone = UNetBackboneConfig(
        hidden_dims=(8,), time_embedding_dim=8, num_classes=classes, attention_resolutions=(8,)
    )
    config = DDIMConfig(input_shape=(8, 8, 1), backbone=backbone, num_inference_steps=2)
    return DDIMModel(config, key=jax.random.key(classes))


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """A model whose file names its classes."""
    path = tmp_path_factory.mktemp("named") / "model.safetensors"
    record = {"ema": True, "training": {"class_names": list(KNOWN)}}
    save_model(path, model(3), record=record)
    return path


def table(of: DDIMModel) -> np.ndarray:
    return np.asarray(of.denoiser.backbone.embedding.classes.table)


def pictures(folder, *names):
    """A folder of three pictures of each class."""
    rng = np.random.default_rng(0)
    for name in names:
        (folder / name).mkdir(parents=True)
        for number in range(3):
            save_picture(folder / name / f"{number}.png", rng.uniform(-1, 1, (1, 8, 8, 1)))
    return folder


def said(capsys, *arguments: object) -> str:
    with pytest.raises(SystemExit) as exit:
        main([str(argument) for argument in arguments])
    assert exit.value.code == 2
    return capsys.readouterr().err


def test_a_class_between_others_takes_no_weights_of_theirs(file):
    """The folder of a new class may sort before that of an old one."""
    before = table(model(3))
    begun = table(begin_from(model(4), file, ("circles", "crosses", "gradients", "stripes")))
    np.testing.assert_array_equal(begun, before[[0, 3, 1, 2, 3]])
    # Without names on both sides, equal numbers match.
    for source, names in ((file, ()), (model(3), ("a", "b", "c", "d"))):
        np.testing.assert_array_equal(
            table(begin_from(model(4), source, names)), before[[0, 1, 2, 3, 3]]
        )


def test_the_command_begins_by_names_and_says_so(file, tmp_path, capsys):
    data = pictures(tmp_path / "more", "circles", "crosses", "gradients", "stripes")
    options = ["--size", "8", "--init-from", str(file), "--training.batch-size", "4"]
    options += ["--model.input-shape", "8", "8", "1", "--model.backbone.hidden-dims", "8"]
    options += ["--model.backbone.time-embedding-dim", "8", "--model.backbone.num-classes", "4"]
    options += ["--model.backbone.attention-resolutions", "8", "--dry-run"]
    main(["train", "-o", str(tmp_path / "run"), "--data", str(data), *options[2:]])
    assert "classes: circles, gradients, stripes known; crosses new" in capsys.readouterr().err


def test_other_classes_than_the_models_are_refused(file, tmp_path, capsys):
    data = pictures(tmp_path / "others", "circles", "crosses", "gradients")
    message = "knows the classes circles, gradients, stripes, and"
    assert message in said(capsys, "evaluate", file, "--data", data, "--size", 8, 8)
    student = ("--kind", "progressive", "--init-from", file, "--training.batch-size", 4)
    assert message in said(capsys, "train", "-o", tmp_path / "run", "--data", data, *student)


@pytest.mark.slow
def test_images_are_drawn_by_the_names_of_their_classes(file, tmp_path, capsys):
    for label in ("stripes", "2"):
        out = tmp_path / f"{label}.npy"
        main(["sample", str(file), "-o", str(out), "-n", "1", "--seed", "1", "--label", label])
    np.testing.assert_array_equal(np.load(tmp_path / "stripes.npy"), np.load(tmp_path / "2.npy"))
    capsys.readouterr()
    wrong = said(capsys, "sample", file, "-o", tmp_path / "x.npy", "--label", "crosses")
    assert "no class 'crosses'; choose 0 to 2, circles, gradients, stripes" in wrong
