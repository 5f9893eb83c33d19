"""`diffusion-eqx train`: every kind of model, files of options, other weights to begin with, dry runs."""

import dataclasses
import importlib.util
import json
import re

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import yaml
from PIL import Image

from diffusion_eqx.cli import main
from diffusion_eqx.config import DDIMConfig, TrainingConfig, UNetBackboneConfig
from diffusion_eqx.data import ImageDataset, digits
from diffusion_eqx.models import DDIMModel, LDMModel, load_model, save_classifier, save_model
from diffusion_eqx.training import DiffusionTrainer, EMAModel, begin_from, train
from tests.test_cli_evaluate import noisy_classifier

QUICK = ["--training.steps", "2", "--training.batch-size", "8", "--training.warmup-steps", "0"]
TINY_UNET = [
    *("--model.input-shape", "8", "8", "1"),
    *("--model.backbone.hidden-dims", "8", "--model.backbone.time-embedding-dim", "8"),
    *("--model.backbone.num-classes", "10", "--model.backbone.attention-resolutions", "8"),
]
KINDS = {
    "ddim": TINY_UNET,
    "ddpm": TINY_UNET,
    "score": [*TINY_UNET, "--model.sde-type", "vp"],
    "dit": [
        *("--model.img-size", "8", "--model.channels", "1", "--model.num-classes", "10"),
        *("--model.hidden-size", "8", "--model.depth", "1", "--model.num-heads", "2"),
    ],
    "latent": [
        *("--model.input-shape", "8", "8", "1", "--model.latent-dim", "4"),
        *("--model.encoder-hidden-dims", "8", "8", "--model.decoder-hidden-dims", "8", "8"),
        *("--model.backbone.hidden-dims", "8", "--model.backbone.time-embedding-dim", "8"),
        *("--model.backbone.num-classes", "10", "--model.backbone.attention-resolutions", "4"),
    ],
}


def fails(arguments, capsys) -> str:
    with pytest.raises(SystemExit) as exit:
        main(arguments)
    assert exit.value.code == 2
    return capsys.readouterr().err


@pytest.mark.parametrize(
    "kind",
    [
        pytest.param(kind, marks=[pytest.mark.long] if kind in ("ddpm", "score", "latent") else [])
        for kind in KINDS
    ],
)
def test_every_kind_of_model_is_trained_by_one_command(kind, tmp_path, capsys):
    folder = tmp_path / "run"
    command = ["train", "--kind", kind, "-o", str(folder), "--data", "digits", *QUICK, *KINDS[kind]]
    main(command)
    model = load_model(folder / "model.safetensors")
    assert model.num_classes == 10
    names = {"ddim": "DDIMModel", "ddpm": "DDPMModel", "score": "ScoreDiffusionModel"}
    assert type(model).__name__ == names.get(
        kind, {"dit": "DiTModel", "latent": "LDMModel"}.get(kind)
    )
    if isinstance(model, LDMModel):
        assert (folder / "autoencoder" / "log.jsonl").exists()
    main(command)
    assert "is finished" in capsys.readouterr().err


def test_a_file_of_options_is_read_and_the_command_line_goes_before_it(tmp_path):
    file = tmp_path / "options.yaml"
    options = {
        "out": str(tmp_path / "run"),
        "kind": "dit",
        "data": "digits",
        "model": {
            "img-size": 8,
            "channels": 1,
            "hidden_size": 8,
            "depth": 1,
            "num_heads": 2,
            "num-classes": 10,
        },
        "training": {"steps": 3, "batch-size": 8, "loss_weighting": "p2"},
    }
    file.write_text(yaml.safe_dump(options))
    main(["train", str(file), "--training.batch-size", "4"])
    settings = json.loads((tmp_path / "run" / "run.json").read_text())
    training = settings["training"]
    assert (training["steps"], training["batch_size"], training["loss_weighting"]) == (3, 4, "p2")
    assert settings["model"]["hidden_size"] == 8
    assert settings["model"]["kind"] == "dit"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"data": "digits"}, "has no `out`"),
        ({"out": "run", "dta": "digits"}, "options that there are not: dta"),
        ({"out": "run", "datta": "digits"}, "datta (did you mean data?)"),
        ({"out": "run", "training": {"stepps": 3}}, "stepps (did you mean steps?)"),
        ({"out": "run", "data": "digits", "model": {"nam": 3}}, "nam (did you mean name?)"),
        ({"out": "run", "data": "digits", "model": {"backbone": {"nam": 3}}}, "model: backbone"),
        ({"out": "run", "model": 3}, "model must hold options by their names"),
        ({"out": "run", "training": 3}, "training must hold options by their names"),
        ({"out": "run", "kind": "gan"}, "unknown --kind 'gan'; choose one of ddim, ddpm"),
        (["out"], "must hold options by their names"),
    ],
)
def test_what_is_wrong_in_a_file_of_options_is_said(content, message, tmp_path, capsys):
    file = tmp_path / "options.yaml"
    file.write_text(yaml.safe_dump(content))
    assert message in fails(["train", str(file)], capsys)
    assert not (tmp_path / "run").exists()


def test_a_file_that_is_no_yaml_or_not_there_is_said(tmp_path, capsys):
    file = tmp_path / "options.yaml"
    assert "No such file" in fails(["train", str(file), "-o", "run"], capsys)
    file.write_text("a: [1, 2")
    assert "is no YAML" in fails(["train", str(file), "-o", "run"], capsys)
    assert "unknown --kind 'gan'" in fails(["train", "--kind", "gan", "-o", "run"], capsys)


def test_a_dry_run_says_what_a_run_takes_and_writes_nothing(tmp_path, capsys):
    folder = tmp_path / "run"
    main(["train", "-o", str(folder), "--data", "digits", "--dry-run", *QUICK, *TINY_UNET])
    said = capsys.readouterr().out
    parameters = DDIMModel(
        DDIMConfig(
            input_shape=(8, 8, 1),
            backbone=UNetBackboneConfig(
                hidden_dims=(8,), time_embedding_dim=8, num_classes=10, attention_resolutions=(8,)
            ),
        ),
        key=jax.random.key(0),
    ).num_parameters
    assert f"parameters        {parameters:,}" in said
    assert "batch             8 x 8 x 8 x 1" in said
    assert "compiling" in said
    assert "images/s" in said
    assert not folder.exists()


def test_a_run_is_watched_as_the_options_say_and_info_tells_of_it(tmp_path, capsys):
    folder = tmp_path / "run"
    judge = tmp_path / "judge.safetensors"
    save_classifier(judge, noisy_classifier())
    watched = ["--quality-every", "2", "--quality-count", "10", "--quality-steps", "2"]
    watched += ["--classifier", str(judge), "--tensorboard", "--training.log-every", "1"]
    watched += ["--training.best-by", "frechet_distance", "--training.keep-checkpoints", "1"]
    command = ["train", "--kind", "dit", "-o", str(folder), "--data", "digits"]
    main([*command, *watched, *QUICK, *KINDS["dit"]])
    rows = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    assert [sorted(row) for row in rows] == [
        ["grad_norm", "loss", "step"],
        ["accuracy", "frechet_distance", "grad_norm", "loss", "step"],
    ]
    assert len(list((folder / "tensorboard").iterdir())) == 1
    capsys.readouterr()
    main(["info", str(folder)])
    said = capsys.readouterr().out
    best = rows[-1]["frechet_distance"]
    for pattern in (
        r"steps +│ 2 of 2 ",
        rf"last loss +│ {rows[-1]['loss']:.4g} ",
        rf"best frechet_distance +│ {best:.4g} at step 2 ",
        r"last images_per_second",
        r"checkpoints +│ 2 ",
        rf"start 1 .*jax {jax.__version__}",
    ):
        assert re.search(pattern, said), pattern
    picture = Image.open(folder / "curves.png")
    assert min(picture.size) > 300
    (tmp_path / "empty").mkdir()
    assert "is no folder of a run" in fails(["info", str(tmp_path / "empty")], capsys)
    model = str(folder / "best.safetensors")
    assert "--curves is for the folder" in fails(["info", model, "--curves", "c.png"], capsys)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--process", "0"], "--processes and --process need --coordinator"),
        (["--coordinator", "here", "--process", "0"], "must be HOST:PORT or auto; got here"),
    ],
)
def test_launch_options_that_do_not_go_together_are_refused(options, message, tmp_path, capsys):
    command = ["train", "-o", str(tmp_path / "run"), "--data", "digits", *options]
    assert message in fails(command, capsys)


def test_a_missing_package_is_said_in_one_line(tmp_path, capsys, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        "importlib.util.find_spec", lambda name: None if name == "wandb" else find(name)
    )
    command = ["train", "-o", str(tmp_path / "run"), "--data", "digits", "--wandb", "toys"]
    assert "pip install 'diffusion-eqx[wandb]'" in fails([*command, *TINY_UNET], capsys)
    assert not (tmp_path / "run").exists()


# Weights to begin with.


def small(classes) -> DDIMModel:
    config = DDIMConfig(
        input_shape=(8, 8, 1),
        backbone=UNetBackboneConfig(
            hidden_dims=(8,), time_embedding_dim=8, num_classes=classes, attention_resolutions=(8,)
        ),
    )
    return DDIMModel(config, key=jax.random.key(classes or 0))


def test_training_begins_with_other_weights_and_new_classes(tmp_path, capsys):
    source = small(10)
    path = tmp_path / "model.safetensors"
    save_model(path, source)
    begun = begin_from(small(12), path)
    ours, theirs = begun.denoiser.backbone, source.denoiser.backbone
    np.testing.assert_array_equal(ours.conv_in.weight, theirs.conv_in.weight)
    table, given = ours.embedding.classes.table, theirs.embedding.classes.table
    np.testing.assert_array_equal(table[:10], given[:10])
    for row in (10, 11, 12):
        np.testing.assert_array_equal(table[row], given[10])
    fewer = begin_from(small(3), source).denoiser.backbone.embedding.classes.table
    np.testing.assert_array_equal(fewer, given[np.asarray([0, 1, 2, 10])])
    # In one line, and by the command.
    data = ImageDataset(digits().images[:32], digits().labels[:32], digits().class_names)
    config = TrainingConfig(steps=1, batch_size=8, learning_rate=1e-12, warmup_steps=0)
    trained = train(small(10), data, config, init_from=path)
    np.testing.assert_allclose(
        trained.denoiser.backbone.conv_in.weight, theirs.conv_in.weight, atol=1e-6
    )
    folder = tmp_path / "run"
    options = ["--model.input-shape", "8", "8", "1", "--model.backbone.hidden-dims", "8"]
    options += ["--model.backbone.time-embedding-dim", "8", "--model.backbone.num-classes", "10"]
    options += ["--model.backbone.attention-resolutions", "8"]
    main(
        [
            "train",
            "-o",
            str(folder),
            "--data",
            "digits",
            "--init-from",
            str(path),
            *QUICK,
            *options,
            "--training.learning-rate",
            "1e-12",
        ]
    )
    found = load_model(folder / "model.safetensors").denoiser.backbone
    np.testing.assert_allclose(found.conv_in.weight, theirs.conv_in.weight, atol=1e-6)


def test_weights_of_another_network_are_refused():
    def wider(classes):
        config = small(classes).config
        network = dataclasses.replace(config.backbone, time_embedding_dim=16)
        return DDIMModel(dataclasses.replace(config, backbone=network), key=jax.random.key(0))

    with pytest.raises(ValueError, match=r"not alike: .*has shape .*in the source"):
        begin_from(small(None), wider(None))
    with pytest.raises(ValueError, match="class tables have 8 and 16 features"):
        begin_from(small(10), wider(10))
    with pytest.raises(ValueError, match="different layers"):
        begin_from(small(10), small(None))


# Names of other libraries.


def test_the_trainer_is_train():
    data = ImageDataset(digits().images[:32], digits().labels[:32], digits().class_names)
    config = TrainingConfig(steps=2, batch_size=8)
    trained = DiffusionTrainer(small(10), config).train(data)
    assert eqx.tree_equal(trained, train(small(10), data, config))


def test_an_averaged_model_follows_its_recursion():
    model = small(10)
    where = lambda m: m.denoiser.backbone.conv_in.weight  # noqa: E731
    ema, expected = EMAModel.of(model, decay=0.5), np.asarray(where(model))
    for n in range(5):
        moved = eqx.tree_at(where, model, where(model) + n)
        ema = ema.update(moved)
        decay = min(0.5, (1 + n) / (10 + n))
        expected = decay * expected + (1 - decay) * np.asarray(where(moved))
    np.testing.assert_allclose(where(ema.model), expected, rtol=1e-5)
    assert ema.model.sample(2, steps=2, key=jax.random.key(0)).shape == (2, 8, 8, 1)
    assert jnp.array_equal(ema.model.schedule.log_alpha_bar, model.schedule.log_alpha_bar)
    with pytest.raises(ValueError, match="decay must be at least 0"):
        EMAModel.of(model, decay=1.0)
