"""What a run's folder keeps: checkpoints, the best model, and by what the run was computed."""

import hashlib
import importlib.metadata
import json
import os
import shutil
import signal
import subprocess

import equinox as eqx
import jax
import numpy as np
import pytest

from diffusion_eqx.config import TrainingConfig
from diffusion_eqx.data import digits
from diffusion_eqx.evaluation import (
    Classifier,
    ClassifierFeatures,
    Quality,
    accuracy,
    extract,
    frechet_distance,
    make_reference,
)
from diffusion_eqx.models import load_model, read_record
from diffusion_eqx.training import (
    Callback,
    Run,
    Stop,
    TrainingDiverged,
    TrainingInterrupted,
    train,
)
from tests.test_fit import StopAt, config, run_fit, same, without_times
from tests.toy_training import Points, digit_model, net


def checkpoints_of(folder) -> list[int]:
    return sorted(int(path.name) for path in (folder / "checkpoints").iterdir())


# Checkpoints.


@pytest.mark.parametrize(("keep", "kept"), [(1, [15, 20]), (2, [15, 20]), (3, [10, 15, 20])])
def test_so_many_checkpoints_are_kept_as_asked_for(tmp_path, keep, kept):
    run_fit(config(keep_checkpoints=keep), run=Run(tmp_path))
    assert checkpoints_of(tmp_path) == kept


def test_stops_never_push_out_the_last_two_checkpoints_of_the_cadence(tmp_path):
    for stop in (11, 12, 13, 14):
        run_fit(run=Run(tmp_path), callbacks=[StopAt(stop)])
    assert checkpoints_of(tmp_path) == [5, 10, 13, 14]


def test_a_run_goes_back_to_the_same_step_wherever_it_was_stopped(tmp_path):
    """Step 15 diverges whatever the rate is, so the run comes back three times."""
    settings = config(on_divergence="return", log_every=1)
    seen = []

    class Watch(Callback):
        def start(self, run):
            seen.append(run.step)

    run_fit(settings, run=Run(tmp_path), data=Points(bad=14), callbacks=[StopAt(12)])
    assert checkpoints_of(tmp_path) == [5, 10, 12]
    with (
        pytest.warns(UserWarning, match="step 15 diverged; the run goes on from step 10"),
        pytest.raises(TrainingDiverged),
    ):
        run_fit(settings, run=Run(tmp_path), data=Points(bad=14), callbacks=[Watch()])
    assert seen == [12, 10, 10, 10]


# The best model.


class Given(Callback):
    """Gives a number at each report, and keeps the averaged models of the run."""

    def __init__(self, *numbers):
        self.numbers, self.models = numbers, {}

    def evaluate(self, run, row):
        self.models[run.step] = run.model()
        return {"mine": self.numbers[run.step - 1]}


NUMBERS = (5.0, 3.0, 4.0, 2.0, 2.0, 6.0)


def best_config(**changes) -> TrainingConfig:
    usual = {"steps": 6, "batch_size": 8, "log_every": 1, "checkpoint_every": 2, "best_by": "mine"}
    return TrainingConfig(**(usual | changes))


@pytest.mark.parametrize(("best_is", "step"), [("least", 4), ("greatest", 6)])
def test_the_averaged_model_is_kept_where_it_was_best(tmp_path, best_is, step):
    given = Given(*NUMBERS)
    model = digit_model()
    trained = train(model, digits(), best_config(best_is=best_is), out=tmp_path, callbacks=[given])
    best = tmp_path / "best.safetensors"
    kept = load_model(best, parts=model.denoiser.backbone)
    assert eqx.tree_equal(kept, given.models[step])
    assert eqx.tree_equal(kept, trained) == (step == 6)
    record = read_record(best)
    expected = {"name": "mine", "value": NUMBERS[step - 1], "step": step}
    assert record.training["best"] == expected
    assert record.ema


def test_a_resumed_run_keeps_the_best_of_all_its_parts(tmp_path):
    """After a kill, steps are made again, and the same model is best."""
    given = Given(*NUMBERS)
    train(digit_model(), digits(), best_config(), out=tmp_path / "whole", callbacks=[given])
    out = tmp_path / "run"
    for stop in (StopAt(5), StopAt()):
        given = Given(*NUMBERS)
        train(digit_model(), digits(), best_config(), out=out, callbacks=[given, stop])
        shutil.rmtree(out / "checkpoints" / "5", ignore_errors=True)
    one, other = ((tmp_path / name / "best.safetensors").read_bytes() for name in ("whole", "run"))
    assert one == other


def test_a_best_model_that_there_cannot_be_is_said(tmp_path):
    with pytest.raises(ValueError, match=r"best_by='mine' needs a folder .*out="):
        train(digit_model(), digits(), best_config())
    with pytest.warns(UserWarning, match=r"no report has 'mine'.*there were grad_norm, .*loss"):
        train(digit_model(), digits(), best_config(), out=tmp_path)
    assert not (tmp_path / "best.safetensors").exists()


# Quality of samples while training.


def quality(**changes) -> Quality:
    data = digits()
    judge = Classifier((8, 8, 1), 10, key=jax.random.key(0))
    features = ClassifierFeatures(judge)
    usual = {"every": 2, "count": 24, "sampler": "ddim", "steps": 3, "batch_size": 16}
    return Quality(
        make_reference(features, data.images[:200]), features, judge, **(usual | changes)
    )


def test_the_quality_is_that_of_images_drawn_with_the_runs_key(tmp_path):
    """Measured by hand from the model of each step; nothing else that is watched changes it."""
    measure, given = quality(), Given(*NUMBERS)
    settings = best_config(best_by="frechet_distance")
    keys = []

    class Keys(Callback):
        def start(self, run):
            keys.append(run.key("quality"))

    train(digit_model(), digits(), settings, out=tmp_path, callbacks=[measure, given, Keys()])
    rows = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if "frechet_distance" in row] == [2, 4, 6]
    labels = np.arange(24) % 10
    for row in rows[1::2]:
        images = given.models[row["step"]].sample(24, "ddim", steps=3, labels=labels, key=keys[0])
        images = measure.reference.preprocessing.apply(np.asarray(images))
        expected = frechet_distance(extract(measure.features, images), measure.reference.features)
        assert row["frechet_distance"] == pytest.approx(expected, rel=1e-4)
        assert row["accuracy"] == accuracy(measure.classifier, images, labels)
    assert len({row["frechet_distance"] for row in rows[1::2]}) == 3
    alone = train_rows(tmp_path / "alone", quality(batch_size=7))
    assert [row["frechet_distance"] for row in alone if "accuracy" in row] == pytest.approx(
        [row["frechet_distance"] for row in rows[1::2]], rel=1e-4
    )


def train_rows(folder, *callbacks, **changes):
    train(
        digit_model(),
        digits(),
        best_config(best_by=None, **changes),
        out=folder,
        callbacks=callbacks,
    )
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def test_the_quality_of_a_resumed_run_is_that_of_one_never_stopped(tmp_path):
    """Reports at steps 3 and 6 only: the measurement that is due at 2 is made at 3."""
    whole = train_rows(tmp_path / "whole", quality(), log_every=3)
    assert ["accuracy" in row for row in whole] == [True, True]
    train_rows(tmp_path / "run", quality(), StopAt(4), log_every=3)
    assert train_rows(tmp_path / "run", quality(), log_every=3) == whole


def test_sampling_is_compiled_once_in_a_run(tmp_path, caplog):
    with jax.log_compiles(), caplog.at_level("WARNING"):
        train_rows(tmp_path, quality(count=10, steps=2, batch_size=5))
    # The program that draws is that of the loop over all steps of the sampler.
    programs = ("Compiling jit(_whole)", "Compiling jit(_parts)")
    drawing = [r for r in caplog.records if r.getMessage().startswith(programs)]
    assert len(drawing) == 1


def test_a_quality_that_cannot_be_measured_is_refused():
    with pytest.raises(ValueError, match="count at least 2; got 2 and 1"):
        quality(count=1)
    other = ClassifierFeatures(Classifier((8, 8, 1), 10, key=jax.random.key(1)))
    with pytest.raises(ValueError, match="features of"):
        Quality(quality().reference, other)


# By what a run was computed.


def launches_of(folder) -> list[dict]:
    return json.loads((folder / "run.json").read_text())["launches"]


def git(folder, *arguments) -> str:
    identity = ("-c", "user.name=a", "-c", "user.email=a@b")
    done = subprocess.run(
        ["git", *identity, *arguments], cwd=folder, check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


def test_a_run_tells_by_what_it_was_computed(tmp_path, monkeypatch):
    work = tmp_path / "work"
    work.mkdir()
    git(work, "init", "-q")
    (work / "train.py").write_text("one")
    git(work, "add", ".")
    git(work, "commit", "-q", "-m", "one")
    monkeypatch.chdir(work)
    monkeypatch.setattr("sys.argv", ["train.py", "--fast"])
    run_fit(run=Run("run"))
    (launch,) = launches_of(work / "run")
    assert launch["command"] == ["train.py", "--fast"]
    # The run's own folder, which git does not know, makes no tree dirty.
    assert launch["git"] == {"commit": git(work, "rev-parse", "HEAD"), "dirty": False}
    for name in ("jax", "jaxlib", "equinox", "optax"):
        assert launch["versions"][name] == importlib.metadata.version(name)
    assert launch["versions"].keys() == {
        "python",
        "jax",
        "jaxlib",
        "equinox",
        "optax",
        "diffusion_eqx",
    }
    assert sum(launch["devices"].values()) == jax.device_count()
    content = hashlib.sha256()
    for array in jax.tree.leaves(eqx.filter(net(), eqx.is_array)):
        content.update(f"{array.dtype}{array.shape}".encode() + np.asarray(array).tobytes())
    assert launch["initial_weights"] == content.hexdigest()
    assert launch["steps"] == 20


def test_a_run_goes_on_with_other_versions_and_says_so_in_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    whole, rows = run_fit(run=Run("whole"))
    run_fit(run=Run("run"), callbacks=[StopAt(7)])
    assert launches_of(tmp_path / "run")[0]["git"] is None
    assert "last started" not in capsys.readouterr().err
    version = importlib.metadata.version
    monkeypatch.setattr(
        "importlib.metadata.version", lambda name: "9.9" if name == "optax" else version(name)
    )
    state, again = run_fit(run=Run("run"))
    said = [line for line in capsys.readouterr().err.splitlines() if "last started" in line]
    assert len(said) == 1
    assert f"optax was {version('optax')}, is 9.9" in said[0]
    assert "python" not in said[0]
    assert same(state, whole)
    assert without_times(again) == without_times(rows)
    assert [launch["versions"]["optax"] for launch in launches_of(tmp_path / "run")] == [
        version("optax"),
        "9.9",
    ]


def test_a_run_tells_how_it_ended(tmp_path):
    class Enough(Callback):
        def step(self, run):
            return Stop("enough") if run.step == 3 else None

    run_fit(run=Run(tmp_path / "run"), callbacks=[Enough()])
    with pytest.raises(TrainingInterrupted):
        run_fit(run=Run(tmp_path / "run"), callbacks=[Interrupted()])
    run_fit(run=Run(tmp_path / "run"))
    ends = [launch["end"] for launch in launches_of(tmp_path / "run")]
    assert ends == [
        "stopped after step 3: enough",
        "interrupted after step 4",
        "finished after step 20",
    ]
    with pytest.raises(TrainingDiverged) as diverged:
        run_fit(data=Points(bad=12), run=Run(tmp_path / "bad"))
    assert launches_of(tmp_path / "bad")[0]["end"] == str(diverged.value)


class Interrupted(Callback):
    """A signal comes during the first step."""

    def step(self, run):
        os.kill(os.getpid(), signal.SIGTERM)


def test_a_machine_without_git_is_no_error(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", os.fspath(tmp_path))
    run_fit(run=Run(tmp_path / "run"))
    assert launches_of(tmp_path / "run")[0]["git"] is None
