"""Training of this library's models: what decays, what fits, whole runs, and the command line."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from diffusion_eqx.cli import main
from diffusion_eqx.config import (
    DDIMConfig,
    DiTConfig,
    LDMConfig,
    NoiseScheduleConfig,
    TrainingConfig,
    UNetBackboneConfig,
)
from diffusion_eqx.data import ImageDataset, digits
from diffusion_eqx.losses import Draws, drop_cond, training_loss
from diffusion_eqx.models import DDIMModel, DiTModel, LDMModel, load_model, read_record
from diffusion_eqx.nn import UNet
from diffusion_eqx.parameterizations import X0Prediction
from diffusion_eqx.random_keys import INIT, STEP, role
from diffusion_eqx.schedules import FlowSchedule
from diffusion_eqx.training import (
    Callback,
    DataMismatch,
    ResumeError,
    averaged,
    check_data,
    decayed,
    make_recipe,
    train,
    train_step,
    trainable,
)
from tests.own_schedule import OwnSchedule

BIN = Path(sys.executable).parent
SMALL = [
    *("--data", "digits", "--model.input-shape", "8", "8", "1"),
    *("--model.backbone.hidden-dims", "8", "8"),
    *("--model.backbone.attention-resolutions", "4"),
    *("--model.backbone.time-embedding-dim", "16"),
    *("--training.batch-size", "32", "--training.warmup-steps", "5", "--training.log-every", "5"),
    *("--training.steps", "60", "--training.checkpoint-every", "10", "--cpu-devices", "1"),
]


class Twice(eqx.Module):
    """The backbone of a model, whose output counts twice: the arrays are the same, the structure is not."""

    backbone: UNet

    def __init__(self, model):
        self.backbone = model.denoiser.backbone

    def __call__(self, x, c_noise, cond, *, key=None):
        return 2.0 * self.backbone(x, c_noise, cond, key=key)


TINY = DDIMConfig(
    backbone=UNetBackboneConfig(
        hidden_dims=(8,), attention_resolutions=(), time_embedding_dim=8, num_classes=10
    ),
    noise_schedule=NoiseScheduleConfig(schedule_type="cosine"),
    input_shape=(8, 8, 1),
    prediction_type="v_prediction",
    num_inference_steps=10,
)


def named(tree) -> dict[str, jax.Array]:
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="."): leaf for path, leaf in leaves}


def recipe_and_model(model_config=TINY, **changes):
    config = TrainingConfig(**({"steps": 20, "warmup_steps": 2, "batch_size": 16} | changes))
    model = DDIMModel(model_config, key=jax.random.key(0))
    return config, model, make_recipe(config, training_loss(model.denoiser, model.config, config))


# Steps.


def test_a_step_lowers_the_loss_and_moves_the_average(small_config, getkey):
    _, model, recipe = recipe_and_model(small_config, learning_rate=1e-2)
    state = recipe.init(model.denoiser.backbone, key=getkey())
    images, labels = jnp.asarray(digits().images[:16]), jnp.asarray(digits().labels[:16])
    losses = []
    for _ in range(20):
        state, metrics = train_step(recipe, state, images, labels)
        losses.append(float(metrics["loss"]))
    assert np.mean(losses[-5:]) < 0.7 * np.mean(losses[:5])
    weights, average = (
        named(eqx.filter(network, eqx.is_array)) for network in (state.network, averaged(state))
    )
    assert weights.keys() == average.keys()
    assert any(float(jnp.abs(weights[n] - average[n]).max()) > 1e-4 for n in weights)


def test_gradients_are_clipped():
    _, model, recipe = recipe_and_model(max_grad_norm=1e-3)
    params = eqx.filter(model.denoiser.backbone, eqx.is_inexact_array)
    huge = jax.tree.map(lambda a: 1e6 * jnp.ones_like(a), params)

    @jax.jit
    def update(grads):
        # The optimiser's own arithmetic mixes types.
        with jax.numpy_dtype_promotion("standard"):
            return recipe.optimizer.update(grads, recipe.optimizer.init(params), params)

    clipped, _ = jax.jit(optax.clip_by_global_norm(1e-3).update)(huge, optax.EmptyState())
    updates, _ = update(huge)
    same, _ = update(clipped)
    for a, b in zip(jax.tree.leaves(updates), jax.tree.leaves(same), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-12)


def test_label_dropout_drops_whole_labels_at_its_rate(getkey):
    labels = jnp.arange(10_000) % 7
    dropped = drop_cond(Draws.of(getkey(), 10_000), labels, 7, 0.1)
    changed = np.asarray(dropped != labels)
    assert np.all(np.asarray(dropped)[changed] == 7)
    assert changed.mean() == pytest.approx(0.1, abs=0.015)


def test_the_random_keys_of_a_step_are_used_once(getkey):
    _, model, recipe = recipe_and_model()
    state = recipe.init(model.denoiser.backbone, key=role(getkey(), STEP))
    with jax.debug_key_reuse(True):
        train_step(
            recipe, state, jnp.asarray(digits().images[:16]), jnp.asarray(digits().labels[:16])
        )


def test_initial_weights_and_training_steps_share_no_key():
    """Roles are apart from one another and from all that a key is split into."""
    key = jax.random.key(0)
    data = [jax.random.key_data(k) for k in (key, role(key, INIT), role(key, STEP))]
    data += list(jax.random.key_data(jax.random.split(key, 1000)))
    assert len({tuple(map(int, numbers)) for numbers in data}) == len(data)


# What is trained, and what decays.

DIT = DiTConfig(
    img_size=8, channels=1, patch_size=4, hidden_size=16, depth=3, num_heads=2, num_classes=10
)


def matrices(network) -> set[str]:
    """The matrices and kernels of our networks, by the names of what owns them."""
    layers = jax.tree_util.tree_leaves_with_path(
        network, is_leaf=lambda node: type(node).__name__ in ("Linear", "Conv")
    )
    return {
        f"{jax.tree_util.keystr(path, simple=True, separator='.')}.weight"
        for path, layer in layers
        if type(layer).__name__ in ("Linear", "Conv")
    }


@pytest.mark.parametrize("kind", ["unet", "dit"])
def test_weight_decay_acts_on_matrices_and_kernels_only(kind, small_config, getkey):
    """Without a gradient decay alone moves weights: stacked biases and the class table stay."""
    model = DDIMModel(small_config, key=getkey()) if kind == "unet" else DiTModel(DIT, key=getkey())
    network = jax.tree.map(
        lambda a: jnp.ones_like(a) if eqx.is_inexact_array(a) else a, model.denoiser.backbone
    )

    def no_gradient(network, x0, cond=None, *, key):
        return jnp.zeros(())

    config = TrainingConfig(steps=20, warmup_steps=0, weight_decay=0.1)
    recipe = make_recipe(config, no_gradient)
    state, _ = train_step(recipe, recipe.init(network, key=getkey()), jnp.zeros((4, 8, 8, 1)))
    after = named(eqx.filter(state.network, eqx.is_inexact_array))
    moved = {name for name, array in after.items() if not np.all(np.asarray(array) == 1.0)}
    assert moved == matrices(network)
    assert len(moved) >= 10
    stacked = {name for name, array in after.items() if array.ndim == 2 and name.endswith("bias")}
    assert stacked.isdisjoint(moved)
    assert bool(stacked) == (kind == "dit")


def test_a_mask_is_known_by_layers_of_equinox_too(getkey):
    mlp = eqx.nn.MLP(3, 4, 8, 2, key=getkey())
    norm = eqx.nn.LayerNorm((4, 4))
    embedding = eqx.nn.Embedding(5, 4, key=getkey())
    marks = named(decayed(eqx.filter((mlp, norm, embedding), eqx.is_inexact_array)))
    assert {name for name, mark in marks.items() if mark} == {
        f"0.layers.{i}.weight" for i in range(3)
    }


def test_weight_decay_that_acts_on_nothing_is_said(getkey):
    recipe = make_recipe(TrainingConfig(weight_decay=0.1), lambda *_, key: jnp.zeros(()))
    with pytest.warns(UserWarning, match="weight_decay changes nothing"):
        recipe.init({"table": jnp.ones((3, 3))}, key=getkey())


def test_a_schedule_is_never_trained(getkey):
    """Even if a whole denoiser is, and its loss depends on the schedule."""
    denoiser = DDIMModel(TINY, key=getkey()).denoiser
    assert jax.tree.leaves(eqx.filter(denoiser.schedule, eqx.is_inexact_array))

    def loss(denoiser, x0, cond=None, *, key):
        arrays = jax.tree.leaves(eqx.filter(denoiser, eqx.is_inexact_array))
        return sum(jnp.sum(jnp.nan_to_num(array, neginf=0.0) ** 2) for array in arrays)

    config = TrainingConfig(steps=20, warmup_steps=0, weight_decay=0.1)
    recipe = make_recipe(config, loss)
    state, _ = train_step(recipe, recipe.init(denoiser, key=getkey()), jnp.zeros((4, 8, 8, 1)))
    assert eqx.tree_equal(state.network.schedule, denoiser.schedule)
    assert eqx.tree_equal(averaged(state).schedule, denoiser.schedule)
    assert not eqx.tree_equal(state.network.backbone, denoiser.backbone)
    marks = trainable(denoiser)
    assert not any(jax.tree.leaves(marks.schedule))


# Data that do not fit are found before any work is done.


def pictures(count=40, size=8, channels=1, classes=10, names=()):
    images = np.zeros((count, size, size, channels), np.uint8)
    labels = None if classes is None else np.arange(count) % classes
    return ImageDataset(images, labels, names)


def unbuilt(**changes):
    """A model without weights, whose configuration is all that is asked for."""
    classes = changes.pop("num_classes", 10)
    backbone = UNetBackboneConfig(
        hidden_dims=(8, 16), attention_resolutions=(4,), num_classes=classes
    )
    config = DDIMConfig(backbone=backbone, input_shape=(8, 8, 1), **changes)
    return eqx.filter_eval_shape(DDIMModel, config, key=jax.random.key(0))


@pytest.mark.parametrize(
    ("model", "data", "message"),
    [
        (
            {},
            {"size": 16},
            r"of shape \(8, 8, 1\), and these have \(16, 16, 1\).*input_shape=\(16, 16, 1\)",
        ),
        (
            {"num_classes": 3},
            {},
            r"labels go up to 9, and the model's classes to 2.*num_classes=10",
        ),
        ({}, {"classes": None}, r"10 classes, and the data have no labels.*num_classes=None"),
        (
            {"num_classes": None},
            {"classes": 3},
            r"3 classes, and the model has none.*num_classes=3",
        ),
        (
            {},
            {"classes": 5, "names": tuple("abcdefghijkl")},
            r"name 12 classes, the model has 10.*num_classes=12",
        ),
        ({"num_classes": 3}, {"size": 16}, r"shape \(8, 8, 1\).*; labels go up to 9"),
    ],
)
def test_data_that_do_not_fit_are_refused_with_the_remedy(model, data, message):
    with pytest.raises(DataMismatch, match=message):
        check_data(unbuilt(**model), pictures(**data))


def test_negative_labels_of_a_data_set_of_ones_own_are_refused():
    data = pictures()
    data.labels = data.labels - 1
    with pytest.raises(DataMismatch, match="a label is -1"):
        check_data(unbuilt(), data)


def test_classes_without_examples_are_said():
    with pytest.warns(UserWarning, match=r"no example is of 3, 4, 5, 6, 7, 8, 9"):
        check_data(unbuilt(), pictures(classes=3))
    check_data(unbuilt(num_classes=None), pictures(classes=None))


def test_training_refuses_before_it_makes_a_folder(tmp_path):
    with pytest.raises(DataMismatch):
        train(unbuilt(num_classes=3), pictures(), TrainingConfig(), out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


# Whole runs.


class StopAt(Callback):
    def __init__(self, step):
        self.at = step

    def step(self, run):
        run.stopping = run.step == self.at


def test_a_model_is_trained_in_one_line(tmp_path):
    """The folder holds the model that is given back; a second run writes the same bytes."""
    config = TrainingConfig(
        steps=6, batch_size=16, log_every=2, checkpoint_every=2, preview_every=3, ema_decay=0.5
    )
    model = DDIMModel(TINY, key=jax.random.key(3))
    before = jax.tree.map(lambda a: a, model)
    trained = train(model, digits(), config, out=tmp_path / "one")
    assert eqx.tree_equal(model, before)
    assert not eqx.tree_equal(trained, model)
    assert sorted(path.name for path in (tmp_path / "one").iterdir()) == [
        *(
            "checkpoints",
            "log.jsonl",
            "model.safetensors",
            "preview.png",
            "run.json",
            "timings.jsonl",
        ),
    ]
    path = tmp_path / "one" / "model.safetensors"
    assert eqx.tree_equal(load_model(path), trained)
    record = read_record(path)
    assert record.ema
    assert record.training["steps"] == 6
    assert record.training["class_names"] == list("0123456789")

    train(model, digits(), config, out=tmp_path / "two", callbacks=[StopAt(3)])
    again = train(model, digits(), config, out=tmp_path / "two")
    assert eqx.tree_equal(again, trained)
    assert (tmp_path / "two" / "model.safetensors").read_bytes() == path.read_bytes()
    without = train(model, digits(), config.__class__(steps=6, batch_size=16, ema_decay=0.5))
    assert eqx.tree_equal(without, trained)


def with_part(name, part):
    return lambda model: eqx.tree_at(lambda m: getattr(m.denoiser, name), model, part)


OTHERS = {
    "schedule.power": with_part("schedule", OwnSchedule(2.0)),
    "schedule.class": with_part("schedule", FlowSchedule()),
    "parameterization.class": with_part("parameterization", X0Prediction()),
    "network.weights": lambda model: DDIMModel(TINY, key=jax.random.key(4)),
    "network.structure": with_part("backbone", Twice(DDIMModel(TINY, key=jax.random.key(3)))),
}


def test_a_run_is_of_the_parts_that_were_put_in_by_hand(tmp_path):
    """A folder must not give the weights of one run to a model of other parts."""
    config = TrainingConfig(steps=1, batch_size=8)
    model = with_part("schedule", OwnSchedule(1.0))(DDIMModel(TINY, key=jax.random.key(3)))
    train(model, digits(), config, out=tmp_path)
    file = (tmp_path / "model.safetensors").read_bytes()
    train(model, digits(), config, out=tmp_path)
    for changed, exchange in OTHERS.items():
        with pytest.raises(ResumeError, match=f"{changed} was .*, is "):
            train(exchange(model), digits(), config, out=tmp_path)
    assert (tmp_path / "model.safetensors").read_bytes() == file


LATENT = LDMConfig(
    backbone=UNetBackboneConfig(
        in_channels=2, out_channels=2, hidden_dims=(8,), time_embedding_dim=8, num_classes=10
    ),
    input_shape=(8, 8, 1),
    latent_dim=2,
    encoder_hidden_dims=(8, 8),
    decoder_hidden_dims=(8, 8),
    noise_schedule=NoiseScheduleConfig(schedule_type="cosine"),
    prediction_type="v_prediction",
)


def test_a_latent_model_is_trained_on_latents_and_keeps_its_autoencoder():
    model = LDMModel(LATENT, scale_factor=100.0, key=jax.random.key(0))
    with pytest.warns(UserWarning, match="standard deviation.*measure_scale_factor"):
        trained = train(model, digits(), TrainingConfig(steps=2, batch_size=16))
    assert eqx.tree_equal(trained.autoencoder, model.autoencoder)
    assert not eqx.tree_equal(trained.denoiser.backbone, model.denoiser.backbone)


def test_training_is_imported_without_what_it_needs_only_at_work():
    code = (
        "import sys, diffusion_eqx.training; "
        "heavy = {'orbax', 'rich', 'grain', 'matplotlib', 'sklearn', 'PIL'}; "
        "sys.exit(', '.join(sorted(heavy & sys.modules.keys())) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


# The command line.


def start(out: Path, *more: str) -> subprocess.Popen:
    command = [str(BIN / "diffusion-eqx"), "train", "--out", str(out), *SMALL, *more]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True)


def run(out: Path, *more: str) -> str:
    process = start(out, *more)
    _, messages = process.communicate()
    assert process.returncode == 0, messages
    return messages


def stop_in_the_middle(out: Path, number: int) -> subprocess.Popen:
    """Signal the run once it has a new checkpoint and goes on towards the next."""
    folder = out / "checkpoints"
    before = {name for name in os.listdir(folder) if name.isdigit()} if folder.is_dir() else set()
    process = start(out)
    deadline = time.time() + 240
    while not (
        folder.is_dir() and any(n.isdigit() and n not in before for n in os.listdir(folder))
    ):
        assert process.poll() is None, process.stderr.read()
        assert time.time() < deadline
        time.sleep(0.05)
    os.kill(process.pid, number)
    process.wait()
    return process


@pytest.mark.long
@pytest.mark.slow
def test_resume_after_kill_equals_the_uninterrupted_run_bit_for_bit(tmp_path):
    """Killed, resumed, interrupted and resumed again, a run ends where an undisturbed one does."""
    whole, out = tmp_path / "whole", tmp_path / "stopped"
    run(whole)
    for number, code in ((signal.SIGKILL, -9), (signal.SIGINT, 130)):
        assert stop_in_the_middle(out, number).returncode == code
        assert not (out / "model.safetensors").exists()
    run(out)
    one, other = (folder / "model.safetensors" for folder in (out, whole))
    assert one.read_bytes() == other.read_bytes()
    rows, wanted = (
        [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
        for folder in (out, whole)
    )
    assert [(row["step"], row["loss"]) for row in rows] == [
        (row["step"], row["loss"]) for row in wanted
    ]
    assert [row["step"] for row in rows] == list(range(5, 65, 5))


def command(*arguments: object) -> subprocess.CompletedProcess:
    line = [str(BIN / "diffusion-eqx"), *map(str, arguments)]
    return subprocess.run(line, capture_output=True, text=True, check=False)


@pytest.mark.long
@pytest.mark.slow
def test_command_line_trains_shows_and_samples(tmp_path, capsys):
    out = tmp_path / "m"
    messages = run(out, "--training.steps", "10", "--training.preview-every", "5")
    assert messages.index("compiling") < messages.index("images/s")
    assert (out / "preview.png").stat().st_size > 100
    model = out / "model.safetensors"
    assert read_record(model).ema

    refused = start(out, "--training.learning-rate", "0.1", "--training.steps", "10")
    _, messages = refused.communicate()
    assert refused.returncode == 2
    assert "training.learning_rate was 0.003, is 0.1" in messages
    assert "--overwrite" in messages
    assert "batch_size" not in messages

    assert "moving average" in command("info", model).stdout
    for name in ("a.npy", "b.npy"):
        drawn = command(
            *("sample", model, "-o", tmp_path / name, "-n", 3, "--steps", 4, "--seed", 5),
            *("--labels", 1, 2, "--guidance-scale", 2),
        )
        assert drawn.returncode == 0, drawn.stderr
    np.testing.assert_array_equal(np.load(tmp_path / "a.npy"), np.load(tmp_path / "b.npy"))
    assert np.load(tmp_path / "a.npy").shape == (3, 8, 8, 1)

    for arguments, message in (
        (("sample", model, "-o", tmp_path / "a.jpg"), "must end in .png, .npy or .gif"),
        (("sample", model, "-o", tmp_path / "a.png", "--sampler", "no"), "unknown sampler"),
        (
            ("sample", model, "-o", tmp_path / "a.png", "--guidance", "auto"),
            "and --weak-model need each other",
        ),
        (("sample", model, "-o", tmp_path / "a.png", "--labels", 11), "labels lie in 0 … 9"),
        (
            ("sample", model, "-o", tmp_path / "a.png", "--steps", 0),
            "steps must be a whole number, at least 1",
        ),
        (("sample", tmp_path / "no", "-o", tmp_path / "a.png"), "there is no model file"),
        (("train", "-o", tmp_path / "m.safetensors"), "--out is the folder of the run"),
    ):
        with pytest.raises(SystemExit) as exit:
            main([*map(str, arguments)])
        assert exit.value.code == 2
        assert message in capsys.readouterr().err
    # In a process of its own, since training decides how many devices jax has.
    given = ("--model.backbone.num-classes", "3")
    failed = command("train", "-o", tmp_path / "n", "--data", "digits", *given)
    assert failed.returncode == 2
    assert "leave out the option of --model, which is then made to fit" in failed.stderr
    assert "Traceback" not in failed.stderr
