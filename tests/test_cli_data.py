"""The command line trains on packaged data sets and on folders of pictures."""

import dataclasses

import jax
import numpy as np
import pytest
from PIL import Image

from diffusion_eqx.cli import main
from diffusion_eqx.config import DDIMConfig, DiTConfig, UNetBackboneConfig
from diffusion_eqx.models import DDIMModel, load_model, read_record, save_model


@pytest.fixture
def pictures(tmp_path):
    """Two classes of three pictures, of two sizes."""
    folder = tmp_path / "pictures"
    for number, name in enumerate(["cats", "dogs"]):
        (folder / name).mkdir(parents=True)
        for i in range(3):
            side = 9 + 4 * i
            pixels = np.random.default_rng(10 * number + i).integers(
                0, 255, (side, 12, 3), np.uint8
            )
            Image.fromarray(pixels).save(folder / name / f"{i}.png")
    return folder


SMALL = [
    *("--model.input-shape", "8", "8", "3", "--model.backbone.in-channels", "3"),
    *("--model.backbone.out-channels", "3", "--model.backbone.num-classes", "2"),
    *("--model.backbone.hidden-dims", "8", "--model.backbone.attention-resolutions", "8"),
    *("--training.steps", "2", "--training.batch-size", "2", "--training.log-every", "1"),
    *("--training.preview-every", "0"),
]


@pytest.mark.slow
def test_a_folder_of_pictures_is_trained_on(pictures, tmp_path):
    main(["train", "-o", str(tmp_path / "run"), "--data", str(pictures), *SMALL])
    path = tmp_path / "run" / "model.safetensors"
    assert load_model(path).config.input_shape == (8, 8, 3)
    assert read_record(path).class_names == ("cats", "dogs")


@pytest.fixture
def chosen(monkeypatch):
    """The configurations of the models that the command line would train."""
    configs = []
    monkeypatch.setattr(
        "diffusion_eqx.training.train", lambda model, *_, **__: configs.append(model.config)
    )
    return configs


@pytest.mark.slow
def test_a_model_is_made_to_fit_the_pictures(pictures, chosen, tmp_path):
    """Size, channels, classes and attention, without an option of the model."""
    folder = ["-o", str(tmp_path / "run"), "--data", str(pictures), "--size", "20", "24"]
    main(["train", *folder, "--training.batch-size", "2"])
    assert chosen[0].input_shape == (20, 24, 3)
    assert chosen[0].backbone.in_channels == chosen[0].backbone.out_channels == 3
    assert chosen[0].backbone.num_classes == 2
    assert chosen[0].backbone.attention_resolutions == (6,)


@pytest.mark.slow
def test_classes_may_stand_in_a_table_or_the_data_in_a_file(pictures, chosen, tmp_path, capsys):
    table = tmp_path / "labels.csv"
    names = [path.relative_to(pictures) for path in sorted(pictures.rglob("*.png"))]
    table.write_text("".join(f"{name},class {number % 3}\n" for number, name in enumerate(names)))
    quick = ["--training.steps", "1", "--training.batch-size", "2"]
    folder = ["-o", str(tmp_path / "run"), "--data", str(pictures), "--size", "16", "16"]
    main(["train", *folder, "--labels", str(table), *quick])
    assert chosen.pop().backbone.num_classes == 3
    arrays = tmp_path / "arrays.npz"
    np.savez(arrays, images=np.zeros((8, 16, 16, 3), np.uint8), labels=np.arange(8) % 4)
    main(["train", "-o", str(tmp_path / "run"), "--data", str(arrays), *quick])
    config = chosen.pop()
    assert (config.input_shape, config.backbone.num_classes) == ((16, 16, 3), 4)
    with pytest.raises(SystemExit):
        main(["train", "-o", "run", "--data", str(arrays), "--labels", str(table), *quick])
    assert "--labels is for pictures" in capsys.readouterr().err


def test_the_options_shown_are_those_of_the_model_made_for_fashion_mnist(chosen, tmp_path):
    main(["train", "-o", str(tmp_path / "fitted")])
    main(["train", "-o", str(tmp_path / "given"), "--model.name", "given"])
    assert dataclasses.replace(chosen[0], name="given") == chosen[1]


def test_an_option_of_the_model_changes_the_one_that_fits(pictures, chosen, tmp_path):
    data = ["-o", str(tmp_path / "run"), "--data", str(pictures), "--training.batch-size", "2"]
    main(["train", *data, "--size", "20", "24"])
    main(["train", *data, "--size", "20", "24", "--model.num-inference-steps", "30"])
    main(["train", *data, "--model.input-shape", "20", "24", "3", "--model.name", "mine"])
    fitted = chosen[0]
    assert chosen[1] == dataclasses.replace(fitted, num_inference_steps=30)
    assert chosen[2] == dataclasses.replace(fitted, name="mine")
    # The pictures have colours; a model of the shape that --help shows reads them in grey.
    main(["train", *data, "--model.input-shape", "28", "28", "1"])
    assert chosen[3].input_shape == (28, 28, 1)
    assert (chosen[3].backbone.in_channels, chosen[3].backbone.num_classes) == (1, 2)
    main(["train", *data, "--kind", "dit", "--model.img-size", "8", "--model.depth", "1"])
    main(["train", *data, "--kind", "dit", "--model.channels", "1", "--size", "8"])
    assert [config.input_shape for config in chosen[4:]] == [(8, 8, 3), (8, 8, 1)]
    assert [config.depth for config in chosen[4:]] == [1, DiTConfig().depth]
    file = tmp_path / "options.yaml"
    file.write_text("model:\n  input-shape: [20, 24, 3]\n  num-inference-steps: 30\n")
    main(["train", str(file), *data])
    assert chosen[6] == chosen[1]
    main(["train", str(file), *data, "--model.input-shape", "16", "16", "3"])
    assert chosen[7].input_shape == (16, 16, 3)
    assert chosen[7].num_inference_steps == 30


def test_a_model_to_begin_with_brings_its_configuration(pictures, chosen, tmp_path):
    network = UNetBackboneConfig(
        hidden_dims=(8, 16),
        time_embedding_dim=8,
        in_channels=3,
        out_channels=3,
        attention_resolutions=(4,),
        num_classes=5,
    )
    config = DDIMConfig(
        input_shape=(8, 8, 3), backbone=network, num_inference_steps=7, prediction_type="sample"
    )
    begun = tmp_path / "begun.safetensors"
    save_model(begun, DDIMModel(config, key=jax.random.key(0)))
    data = ["-o", str(tmp_path / "run"), "--data", str(pictures), "--training.batch-size", "2"]
    main(["train", *data, "--init-from", str(begun)])
    two = dataclasses.replace(network, num_classes=2)
    assert chosen[0] == dataclasses.replace(config, backbone=two)
    # At twice the size the same levels attend, so that the weights fit.
    main(["train", *data, "--init-from", str(begun), "--size", "16", "--model.name", "larger"])
    larger = dataclasses.replace(two, attention_resolutions=(8,))
    expected = dataclasses.replace(config, name="larger", input_shape=(16, 16, 3), backbone=larger)
    assert chosen[1] == expected


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--size", "8", "8", *SMALL], "both say the size of the pictures: leave one out"),
        (
            ["--data", "digits", "--model.input-shape", "28", "28", "1"],
            "the images of digits are 8 x 8 x 1, and options of --model ask for others",
        ),
        (["--model.input-shap", "8", "8", "3"], "did you mean --model.input-shape?"),
        (["--kind", "progressive", "--model.name", "mine"], "'--model.name' is no option here"),
    ],
)
def test_options_of_the_model_that_do_not_fit_are_refused(
    options, message, pictures, tmp_path, capsys
):
    data = ["-o", str(tmp_path / "run"), "--data", str(pictures), "--training.batch-size", "2"]
    with pytest.raises(SystemExit):
        main(["train", *data, *options])
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--data", "catz"],
            "unknown data set 'catz', and no file or folder of that name is there; choose",
        ),
        (
            ["--data", "catz", "--data-dir", "."],
            "unknown data set 'catz', and no file or folder of that name is there; choose",
        ),
        (["--data", "emoji", "--data-dir", "."], "read from where it is: leave out --data-dir"),
    ],
)
def test_other_data_are_refused(arguments, message, tmp_path, capsys):
    with pytest.raises(SystemExit) as exit:
        main(["train", "-o", str(tmp_path / "run"), *arguments])
    assert exit.value.code == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
