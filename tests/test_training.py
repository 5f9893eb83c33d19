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
import pytest
import safetensors

from diffusion_eqx.cli.main import main
from diffusion_eqx.config import DiffusionTrainingConfig
from diffusion_eqx.data import digits
from diffusion_eqx.losses import drop_cond
from diffusion_eqx.models import DDIMModel, load_model
from diffusion_eqx.models.array_file import named_arrays
from diffusion_eqx.training import (
    Checkpoints,
    ResumeError,
    TrainingDiverged,
    averaged,
    fit,
    make_recipe,
    train_step,
)

BIN = Path(sys.executable).parent
SMALL = [
    *("--data", "digits", "--model.input-shape", "8", "8", "1"),
    *("--model.backbone.hidden-dims", "8", "8"),
    *("--model.backbone.attention-resolutions", "4"),
    *("--model.backbone.time-embedding-dim", "16"),
    *("--training.batch-size", "32", "--training.warmup-steps", "5", "--log-every", "5"),
    *("--training.steps", "60", "--checkpoint-every", "10", "--cpu-devices", "1"),
]


def start(out: Path, *more: str) -> subprocess.Popen:
    command = [str(BIN / "diffusion-eqx"), "train", "--out", str(out), *SMALL, *more]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True)


def run(out: Path, *more: str) -> str:
    process = start(out, *more)
    _, messages = process.communicate()
    assert process.returncode == 0, messages
    return messages


def contents(path: Path) -> tuple[dict, dict]:
    """Metadata and the bytes of every array; the library writes metadata in no fixed order."""
    with safetensors.safe_open(path, "numpy") as file:
        names = file.keys()
        return file.metadata(), {name: file.get_tensor(name).tobytes() for name in names}


def stop_in_the_middle(out: Path, number: int, *more: str) -> subprocess.Popen:
    """Signal the run once it has a new checkpoint and goes on towards the next."""
    folder = out.with_name(out.name + ".checkpoints")
    before = {name for name in os.listdir(folder) if name.isdigit()}
    process = start(out, *more)
    deadline = time.time() + 240
    while not any(name.isdigit() and name not in before for name in os.listdir(folder)):
        assert process.poll() is None, process.stderr.read()
        assert time.time() < deadline
        time.sleep(0.05)
    os.kill(process.pid, number)
    process.wait()
    return process


@pytest.mark.slow
def test_resume_after_kill_equals_the_uninterrupted_run_bit_for_bit(tmp_path):
    """Killed, resumed, interrupted and resumed again, a run ends where an undisturbed one does."""
    whole, out = tmp_path / "whole.safetensors", tmp_path / "stopped.safetensors"
    run(whole)
    out.with_name(out.name + ".checkpoints").mkdir()
    for number, code, more in ((signal.SIGKILL, -9, []), (signal.SIGINT, 130, ["--resume"])):
        assert stop_in_the_middle(out, number, *more).returncode == code
        assert not out.exists()
    run(out, "--resume")
    assert contents(out) == contents(whole)
    log = out.with_name(out.name + ".log.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in log] == list(range(5, 65, 5))


def recipe_and_model(small_config, **changes):
    training = DiffusionTrainingConfig(steps=20, warmup_steps=2, batch_size=16, **changes)
    model = DDIMModel(small_config, key=jax.random.key(0))
    recipe = make_recipe(training, model.training_loss(training))
    return training, model, recipe


def test_a_step_lowers_the_loss_and_moves_the_average(small_config, getkey):
    _, model, recipe = recipe_and_model(small_config, learning_rate=1e-2)
    state = recipe.init(model.denoiser.backbone, key=getkey())
    images, labels = jnp.asarray(digits().images[:16]), jnp.asarray(digits().labels[:16])
    losses = []
    for _ in range(20):
        state, metrics = train_step(recipe, state, images, labels)
        losses.append(float(metrics["loss"]))
    assert np.mean(losses[-5:]) < 0.7 * np.mean(losses[:5])
    weights, average = named_arrays(state.backbone), named_arrays(averaged(state))
    assert weights.keys() == average.keys()
    assert any(float(jnp.abs(weights[n] - average[n]).max()) > 1e-4 for n in weights)


def test_the_average_follows_its_recursion(small_config, getkey):
    _, model, recipe = recipe_and_model(
        small_config, ema_decay=0.9, ema_update_every=2, learning_rate=1e-2
    )
    state = recipe.init(model.denoiser.backbone, key=getkey())
    name = "conv_in.weight"
    expected = np.asarray(named_arrays(state.backbone)[name])
    images = jnp.asarray(digits().images[:16])
    for step in range(6):
        state, _ = train_step(recipe, state, images, None)
        if (step + 1) % 2 == 0:
            n = step // 2
            decay = min(0.9, (1 + n) / (10 + n))
            new = np.asarray(named_arrays(state.backbone)[name])
            expected = decay * expected + (1 - decay) * new
        np.testing.assert_allclose(named_arrays(averaged(state))[name], expected, atol=1e-6)


def test_gradients_are_clipped(small_config, getkey):
    _, model, recipe = recipe_and_model(small_config, max_grad_norm=1e-3)
    params = eqx.filter(model.denoiser.backbone, eqx.is_inexact_array)
    huge = jax.tree.map(lambda a: 1e6 * jnp.ones_like(a), params)
    import optax

    update = jax.jit(
        lambda grads: recipe.optimizer.update(grads, recipe.optimizer.init(params), params)
    )
    clipped, _ = jax.jit(optax.clip_by_global_norm(1e-3).update)(huge, optax.EmptyState())
    updates, _ = update(huge)
    same, _ = update(clipped)
    for a, b in zip(jax.tree.leaves(updates), jax.tree.leaves(same), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-12)


def test_label_dropout_drops_whole_labels_at_its_rate(getkey):
    labels = jnp.arange(10_000) % 7
    dropped = drop_cond(getkey(), labels, 7, 0.1)
    changed = np.asarray(dropped != labels)
    assert np.all(np.asarray(dropped)[changed] == 7)
    assert changed.mean() == pytest.approx(0.1, abs=0.015)


def test_divergence_is_reported(small_config):
    training, model, recipe = recipe_and_model(small_config)
    broken = eqx.tree_at(lambda b: b.conv_in.bias, model.denoiser.backbone, jnp.full((8,), jnp.nan))
    with pytest.raises(TrainingDiverged, match="learning_rate"):
        fit(broken, digits(), recipe, training)


def test_resuming_nothing_or_another_run_is_refused(small_config, tmp_path, getkey):
    _, model, recipe = recipe_and_model(small_config)
    state = recipe.init(model.denoiser.backbone, key=getkey())
    with Checkpoints(tmp_path, run={"steps": 20}) as checkpoints:
        with pytest.raises(ResumeError, match="no complete checkpoint"):
            checkpoints.restore(state)
        checkpoints.save(state, [{"step": 1, "loss": 0.5}])
    with Checkpoints(tmp_path, run={"steps": 20}) as checkpoints:
        restored, history = checkpoints.restore(state)
        assert history == [{"step": 1, "loss": 0.5}]
        assert eqx.tree_equal(restored, state)
    with (
        Checkpoints(tmp_path, run={"steps": 30}) as checkpoints,
        pytest.raises(ResumeError, match="steps was 20, is 30"),
    ):
        checkpoints.restore(state)


def test_command_line_trains_shows_and_samples(tmp_path, capsys):
    out = tmp_path / "m.safetensors"
    messages = run(out, "--training.steps", "10", "--preview-every", "5")
    assert "images/s" in messages
    assert out.with_name("m.safetensors.preview.png").stat().st_size > 100
    assert load_model(out).ema

    def command(*arguments: object) -> subprocess.CompletedProcess:
        line = [str(BIN / "diffusion-eqx"), *map(str, arguments)]
        return subprocess.run(line, capture_output=True, text=True, check=False)

    assert "moving average" in command("info", out).stdout
    for name in ("a.npy", "b.npy"):
        drawn = command(
            *("sample", out, "-o", tmp_path / name, "-n", 3, "--steps", 4, "--seed", 5),
            *("--labels", 1, 2, "--guidance-scale", 2),
        )
        assert drawn.returncode == 0, drawn.stderr
    np.testing.assert_array_equal(np.load(tmp_path / "a.npy"), np.load(tmp_path / "b.npy"))
    assert np.load(tmp_path / "a.npy").shape == (3, 8, 8, 1)

    for arguments, message in (
        (("sample", out, "-o", tmp_path / "a.jpg"), "must end in .png, .npy or .gif"),
        (("sample", out, "-o", tmp_path / "a.png", "--sampler", "no"), "unknown sampler"),
        (("sample", out, "-o", tmp_path / "a.png", "--guidance", "auto"), "needs --weak-model"),
        (("sample", out, "-o", tmp_path / "a.png", "--labels", 11), "none of 0 … 9"),
        (("sample", out, "-o", tmp_path / "a.png", "--steps", 0), "steps must be between"),
        (("sample", tmp_path / "no", "-o", tmp_path / "a.png"), "there is no model file"),
    ):
        with pytest.raises(SystemExit) as exit:
            main([*map(str, arguments)])
        assert exit.value.code == 2
        assert message in capsys.readouterr().err
    # In a process of its own, since training decides how many devices jax has.
    failed = command("train", "-o", tmp_path / "n", "--data", "digits")
    assert failed.returncode == 2
    assert "--model.input-shape 8 8 1" in failed.stderr
    assert "Traceback" not in failed.stderr
