"""Laws of `fit` and its folder, on a network that trains in a moment."""

import json
import logging
import re
import subprocess
import sys
import warnings
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from diffusion_eqx.config import TrainingConfig
from diffusion_eqx.training import (
    Callback,
    Checkpoints,
    ResumeError,
    Run,
    TrainingDiverged,
    averaged,
    fit,
    make_recipe,
    train_step,
)
from tests.toy_training import Points, denoising, net

ROOT = Path(__file__).parents[1]


def config(**changes) -> TrainingConfig:
    usual = {"steps": 20, "batch_size": 16, "log_every": 5, "checkpoint_every": 5}
    return TrainingConfig(**(usual | changes))


def run_fit(settings=None, *, data=None, loss=denoising, **more):
    settings = config() if settings is None else settings
    return fit(net(), data or Points(), make_recipe(settings, loss), settings, **more)


def same(one, other) -> bool:
    return bool(eqx.tree_equal(one, other))


def without_times(rows):
    return [{name: row[name] for name in ("step", "loss", "grad_norm")} for row in rows]


class StopAt(Callback):
    def __init__(self, *steps):
        self.steps = steps

    def step(self, run):
        run.stopping = run.step in self.steps


# A state is always good.


def test_a_step_that_is_not_finite_changes_nothing_and_neither_do_those_after_it(getkey):
    recipe = make_recipe(config(), denoising)
    state = recipe.init(net(), key=getkey())
    good = jnp.asarray(Points().points[:16])
    for _ in range(3):
        state, _ = train_step(recipe, state, good)
    before = jax.tree.map(lambda a: jnp.copy(a) if eqx.is_array(a) else a, state)
    for batch in (good.at[0, 0].set(jnp.nan), good, good):
        state, _ = train_step(recipe, state, batch)
        assert bool(state.halted)
        assert same(eqx.tree_at(lambda s: s.halted, state, jnp.zeros((), bool)), before)
    assert int(state.step) == 3


def test_an_infinite_gradient_of_a_finite_loss_halts_too(getkey):
    def steep(network, x0, cond=None, *, key):
        return jnp.sqrt(jnp.sum(network.layers[0].bias ** 2) * 0.0)

    recipe = make_recipe(config(), steep)
    state, metrics = train_step(recipe, recipe.init(net(), key=getkey()), jnp.ones((4, 2)))
    assert np.isfinite(metrics["loss"])
    assert not np.isfinite(metrics["grad_norm"])
    assert bool(state.halted)
    assert int(state.step) == 0


@pytest.mark.parametrize(("log_every", "checkpoint_every"), [(5, 0), (0, 1), (20, 5)])
def test_divergence_names_the_step_and_leaves_only_good_checkpoints(
    tmp_path, log_every, checkpoint_every
):
    settings = config(log_every=log_every, checkpoint_every=checkpoint_every)
    with pytest.raises(TrainingDiverged, match=r"step 13 .*learning_rate"):
        run_fit(settings, data=Points(bad=12), run=Run(tmp_path / "run"))
    checkpoints = Checkpoints(tmp_path / "run" / "checkpoints")
    restored = checkpoints.newest(
        make_recipe(settings, denoising).init(net(), key=jax.random.key(0))
    )
    checkpoints.close()
    if checkpoint_every == 0:
        assert restored is None
    else:
        state = restored.state
        assert int(state.step) == 12 // checkpoint_every * checkpoint_every
        arrays = jax.tree.leaves(eqx.filter(state, eqx.is_inexact_array))
        assert all(np.isfinite(array).all() for array in arrays)


def test_a_run_that_a_callback_stops_after_it_diverged_leaves_no_checkpoint_of_it(tmp_path):
    settings = config(log_every=0, checkpoint_every=0)
    with pytest.raises(TrainingDiverged, match="step 3 "):
        run_fit(settings, data=Points(bad=2), run=Run(tmp_path), callbacks=[StopAt(7)])
    assert not any(path.name.isdigit() for path in (tmp_path / "checkpoints").iterdir())


def test_divergence_is_reported_without_reports_and_folder():
    with pytest.raises(TrainingDiverged, match="step 3 "):
        run_fit(config(log_every=0), data=Points(bad=2))


def test_the_average_follows_its_recursion(getkey):
    recipe = make_recipe(config(steps=100, ema_decay=0.9, ema_update_every=2), denoising)
    state = recipe.init(net(), key=getkey())
    expected = np.asarray(state.network.layers[0].weight)
    batch = jnp.asarray(Points().points[:16])
    for step in range(40):
        state, _ = train_step(recipe, state, batch)
        weight = np.asarray(state.network.layers[0].weight)
        if (step + 1) % 2 == 0:
            n = step // 2
            decay = min(0.9, (1 + n) / (10 + n))
            expected = decay * expected + (1 - decay) * weight
        np.testing.assert_allclose(averaged(state).layers[0].weight, expected, atol=1e-6)
    assert np.abs(weight - expected).max() > 1e-4


# A run that goes on is the run that was never stopped.


def test_a_resumed_run_equals_one_that_was_never_stopped(tmp_path):
    """State and reports, bit for bit, wherever it was stopped; the mean of a report is not lost."""
    settings = config(checkpoint_every=0)
    whole, rows = run_fit(settings, run=Run(tmp_path / "whole"))
    for stop in (7, 13):
        state, _ = run_fit(settings, run=Run(tmp_path / "run"), callbacks=[StopAt(stop)])
        assert int(state.step) == stop
    state, resumed = run_fit(settings, run=Run(tmp_path / "run"))
    assert same(state, whole)
    assert without_times(resumed) == without_times(rows)
    for name in ("whole", "run"):
        lines = (tmp_path / name / "log.jsonl").read_text().splitlines()
        assert without_times(map(json.loads, lines)) == without_times(rows)


def test_a_finished_run_says_so_and_gives_its_state_again(tmp_path, capsys):
    whole, rows = run_fit(run=Run(tmp_path))
    again, same_rows = run_fit(run=Run(tmp_path))
    assert same(whole, again)
    assert rows == same_rows
    assert f"the run in {tmp_path} is finished" in capsys.readouterr().err.replace("\n", "")


def test_other_settings_are_refused_naming_those_that_changed(tmp_path):
    run_fit(config(), run=Run(tmp_path, settings={"model": {"kind": "toy", "eta": 0.0}}))
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(ResumeError) as refused:
        run_fit(
            config(learning_rate=1e-2, log_every=1),
            data=Points(count=50),
            run=Run(tmp_path, settings={"model": {"kind": "toy", "eta": 0.5}}),
        )
    message = str(refused.value)
    for part in (
        "training.learning_rate was 0.003, is 0.01",
        "model.eta was 0.0, is 0.5",
        "data.examples was 100, is 50",
        "overwrite=True",
    ):
        assert part in message
    for part in ("kind", "seed", "log_every", "network"):
        assert part not in message
    after = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
    assert after == before


def test_reports_may_become_denser_when_a_run_is_continued(tmp_path):
    run_fit(config(), run=Run(tmp_path), callbacks=[StopAt(10)])
    _, rows = run_fit(config(log_every=1), run=Run(tmp_path))
    assert [row["step"] for row in rows] == [5, 10, *range(11, 21)]


def test_what_changes_nothing_but_time_and_memory_may_change(tmp_path):
    whole, _ = run_fit(run=Run(tmp_path / "whole"))
    run_fit(run=Run(tmp_path / "run"), callbacks=[StopAt(12)])
    state, _ = run_fit(config(sharded=True, on_divergence="return"), run=Run(tmp_path / "run"))
    assert same(state, whole)


def test_a_run_of_a_constant_rate_may_be_made_longer(tmp_path):
    usual = {"learning_rate_schedule": "constant", "warmup_steps": 3}
    run_fit(config(steps=12, **usual), run=Run(tmp_path / "run"))
    state, rows = run_fit(config(steps=20, **usual), run=Run(tmp_path / "run"))
    whole, _ = run_fit(config(steps=20, **usual))
    assert same(state.network, whole.network)
    assert rows[-1]["step"] == 20
    # A shorter one is finished.
    again, _ = run_fit(config(steps=5, **usual), run=Run(tmp_path / "run"))
    assert same(again.network, whole.network)
    run_fit(config(steps=12), run=Run(tmp_path / "cosine"))
    with pytest.raises(ResumeError, match="steps was 12, is 20"):
        run_fit(config(steps=20), run=Run(tmp_path / "cosine"))


def test_only_overwrite_deletes_and_only_what_a_run_wrote(tmp_path, capsys):
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "notes.txt").write_text("mine")
    first, _ = run_fit(run=Run(folder))
    other, _ = run_fit(config(seed=1), run=Run(folder, overwrite=True))
    assert not same(first, other)
    assert "deleted the old checkpoints, log.jsonl" in capsys.readouterr().err
    assert (folder / "notes.txt").read_text() == "mine"

    (folder / "run.json").unlink()
    with pytest.raises(
        ResumeError, match=r"holds checkpoints, log.jsonl, timings.jsonl, but not the run.json"
    ):
        run_fit(config(seed=1), run=Run(folder))
    with pytest.raises(NotADirectoryError, match="is a file"):
        run_fit(run=Run(folder / "notes.txt"))


def test_a_model_without_its_checkpoint_is_not_written_over(tmp_path):
    run_fit(config(), run=Run(tmp_path))
    (tmp_path / "model.safetensors").write_text("precious")
    for checkpoint in (tmp_path / "checkpoints").iterdir():
        checkpoint.rename(tmp_path / f"moved-{checkpoint.name}")
    with pytest.raises(ResumeError, match="no checkpoint to go on from"):
        run_fit(config(), run=Run(tmp_path))
    assert (tmp_path / "model.safetensors").read_text() == "precious"


# Callbacks.


class Recorder(Callback):
    def __init__(self):
        self.calls = []

    def start(self, run):
        self.calls.append(("start", run.step))

    def evaluate(self, run, row):
        self.calls.append(("evaluate", run.step))
        return {"mine": 7}

    def step(self, run):
        self.calls.append(("step", run.step))

    def end(self, run):
        self.calls.append(("end", run.finished))


def test_callbacks_are_called_in_order_and_may_add_to_a_report(tmp_path):
    recorder = Recorder()
    _, rows = run_fit(config(steps=4, log_every=2), run=Run(tmp_path), callbacks=[recorder])
    assert recorder.calls == [
        *(("start", 0), ("step", 1), ("evaluate", 2), ("step", 2)),
        *(("step", 3), ("evaluate", 4), ("step", 4), ("end", True)),
    ]
    lines = (tmp_path / "log.jsonl").read_text().splitlines()
    # The speed of the machine has a file of its own.
    plain = [{k: v for k, v in row.items() if k != "images_per_second"} for row in rows]
    assert [json.loads(line) for line in lines] == plain
    assert rows[0]["mine"] == 7.0


class Failing(Callback):
    def step(self, run):
        if run.step == 7:
            raise OSError("the disk is full")


class FailingQuietly(Failing):
    optional = True


def test_a_callback_of_ones_own_ends_the_run_once_its_state_is_saved(tmp_path):
    recorder = Recorder()
    with pytest.raises(OSError, match="disk is full"):
        run_fit(run=Run(tmp_path), callbacks=[Failing(), recorder])
    assert recorder.calls[-1] == ("end", False)
    assert sorted(p.name for p in (tmp_path / "checkpoints").iterdir() if p.name.isdigit()) == [
        "5",
        "7",
    ]
    state, _ = run_fit(run=Run(tmp_path))
    assert same(state, run_fit()[0])


def test_an_optional_callback_never_ends_a_run(tmp_path):
    with pytest.warns(UserWarning, match="FailingQuietly failed after step 7.*disk is full"):
        state, _ = run_fit(run=Run(tmp_path), callbacks=[FailingQuietly()])
    assert int(state.step) == 20


def test_a_preview_that_cannot_be_drawn_never_ends_a_run(tmp_path):
    """A network without a way to draw stands for any failure of drawing."""
    run = Run(tmp_path, assemble=lambda network: network)
    with pytest.warns(UserWarning, match="Preview failed after step 20.*num_classes"):
        state, _ = run_fit(config(preview_every=20), run=run)
    assert int(state.step) == 20


def test_previews_without_folder_or_model_are_refused(tmp_path):
    for run in (None, Run(tmp_path / "run")):
        with pytest.raises(ValueError, match="preview_every=5 needs a folder"):
            run_fit(config(preview_every=5), run=run)


class Keeping(Callback):
    """Keeps networks over the steps that reuse the memory of the state."""

    def __init__(self):
        self.networks, self.averages, self.keys = [], [], []

    def step(self, run):
        self.networks.append(run.network(average=False))
        self.averages.append(run.model())
        self.keys.append((run.key("one"), run.key("two")))


def test_a_callback_may_keep_what_a_run_gives_it():
    keeping = Keeping()
    state, _ = run_fit(callbacks=[keeping], run=Run())
    assert same(keeping.networks[-1], state.network)
    assert same(keeping.averages[-1], averaged(state))
    assert not same(keeping.networks[0], keeping.networks[1])
    assert np.isfinite(keeping.networks[0].layers[0].weight).all()
    (one, two), (again, _) = keeping.keys[0], keeping.keys[-1]
    assert one == again
    assert one != two


# What one sees and what it costs.


def test_something_is_said_before_the_first_compilation(capsys):
    def traced(network, x0, cond=None, *, key):
        print("tracing", file=sys.stderr)
        return denoising(network, x0, cond, key=key)

    run_fit(loss=traced)
    said = capsys.readouterr().err
    assert said.index("compiling the training step") < said.index("tracing")
    (first,) = re.findall(r"^compiled in \d+ s; step 1 has loss ([0-9.]+)$", said, re.M)
    _, rows = run_fit(config(log_every=1))
    assert float(first) == pytest.approx(rows[0]["loss"], abs=1e-4)
    assert "step 20/20  loss" in said


def test_a_run_compiles_its_step_once(tmp_path, caplog):
    """Reports, checkpoints and resumption included."""
    run_fit(config(steps=30), run=Run(tmp_path), callbacks=[StopAt(8)])
    with jax.log_compiles(), caplog.at_level(logging.WARNING):
        run_fit(config(steps=30), run=Run(tmp_path), loss=lambda *a, key: denoising(*a, key=key))
    compiled = [r.message for r in caplog.records if r.message.startswith("Compiling")]
    assert sum("_step" in message for message in compiled) == 1, compiled


def test_a_recipe_for_another_length_is_refused():
    with pytest.raises(ValueError, match=r"planned for 20 steps, but config\.steps is 40"):
        fit(net(), Points(), make_recipe(config(), denoising), config(steps=40))
    own = make_recipe(config(), denoising, optax.sgd(1e-2))
    state, _ = fit(net(), Points(), own, config(steps=40))
    assert int(state.step) == 40


def test_a_step_leaves_the_batch_alone(getkey):
    recipe = make_recipe(config(), denoising)
    state, batch = recipe.init(net(), key=getkey()), jnp.ones((16, 2))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        state, _ = train_step(recipe, state, batch)
    assert float(batch.sum()) == 32.0


DEVICES = """
import sys, warnings
import jax
jax.config.update("jax_num_cpu_devices", 4)
import numpy as np
from diffusion_eqx.config import TrainingConfig
from diffusion_eqx.training import fit, make_recipe
from tests.toy_training import Points, denoising, net

warnings.simplefilter("error")
for batch_size in (16, 6):
    settings = TrainingConfig(steps=10, batch_size=batch_size)
    try:
        state, rows = fit(net(), Points(), make_recipe(settings, denoising), settings)
        print(batch_size, repr(rows[-1]["loss"]), len(state.step.devices()))
    except UserWarning as warning:
        print(batch_size, warning)
"""


def test_a_batch_that_does_not_divide_by_the_devices_is_said():
    done = subprocess.run(
        [sys.executable, "-c", DEVICES], cwd=ROOT, capture_output=True, text=True, check=True
    )
    divides, other = done.stdout.splitlines()
    _, loss, devices = divides.split()
    settings = TrainingConfig(steps=10, batch_size=16)
    _, rows = fit(net(), Points(), make_recipe(settings, denoising), settings)
    assert float(loss) == pytest.approx(rows[-1]["loss"], rel=1e-5)
    assert devices == "1"
    assert "6 does not divide by the 4 devices" in other
    assert "uses 3 of them" in other
    assert "batch_size=4 or 8" in other
