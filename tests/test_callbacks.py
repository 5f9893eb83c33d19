"""What callbacks may answer, what they remember, and the reports for TensorBoard and Weights & Biases."""

import io
import json
import shutil
import struct
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from diffusion_eqx.config import DDIMConfig
from diffusion_eqx.training import Callback, Run, Stop, TensorBoard, WeightsAndBiases
from tests.test_fit import StopAt, config, run_fit, same


class Answers(Callback):
    """Answers each call as a table says."""

    def __init__(self, **answers):
        self.answers = answers

    def start(self, run):
        return self.answers.get("start")

    def step(self, run):
        return self.answers.get("step")

    def evaluate(self, run, row):
        return self.answers.get("evaluate")


def test_a_stop_ends_the_run_with_its_reason_and_the_state_is_saved(tmp_path, capsys):
    class Patience(Callback):
        def evaluate(self, run, row):
            return Stop("the loss is low enough") if run.step == 10 else None

    state, rows = run_fit(run=Run(tmp_path), callbacks=[Patience()])
    assert int(state.step) == 10
    assert [row["step"] for row in rows] == [5, 10]
    assert "stops after step 10: the loss is low enough" in capsys.readouterr().err
    assert (tmp_path / "checkpoints" / "10").exists()
    again, _ = run_fit(run=Run(tmp_path))
    assert same(again, run_fit()[0])


@pytest.mark.parametrize(("when", "steps"), [("start", 0), ("step", 1), ("evaluate", 5)])
def test_every_method_may_stop_the_run(when, steps):
    state, _ = run_fit(callbacks=[Answers(**{when: Stop("enough")})])
    assert int(state.step) == steps


def test_the_numbers_of_several_callbacks_are_in_the_log(tmp_path):
    answers = [Answers(evaluate={"one": 1, "two": np.float32(2.0)}), Answers(evaluate={"three": 3})]
    _, rows = run_fit(run=Run(tmp_path), callbacks=answers)
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    for row in (*rows, *lines):
        assert (row["one"], row["two"], row["three"]) == (1.0, 2.0, 3.0)


@pytest.mark.parametrize(
    ("answers", "message"),
    [
        ({"evaluate": {"loss": 1.0}}, "Answers.evaluate gave 'loss', which the report has"),
        ({"evaluate": 3.0}, r"Answers.evaluate must return None, Stop\(reason\) or numbers"),
        ({"step": {"mine": 1.0}}, r"Answers.step must return None or Stop\(reason\); got"),
    ],
)
def test_an_answer_that_cannot_be_taken_is_refused(answers, message):
    with pytest.raises((TypeError, ValueError), match=message):
        run_fit(callbacks=[Answers(**answers)])


def test_a_number_that_is_not_finite_is_left_out_and_said():
    with pytest.warns(UserWarning, match="gave bad=nan, which is left out"):
        _, rows = run_fit(callbacks=[Answers(evaluate={"bad": float("nan"), "good": 1.0})])
    assert all("bad" not in row and row["good"] == 1.0 for row in rows)


class Counting(Callback):
    """Counts the steps it saw, over resumptions."""

    def __init__(self, seen=()):
        self.seen = list(seen)

    def step(self, run):
        self.seen.append(run.step)

    def state(self):
        return {"seen": self.seen}

    def restore(self, state):
        self.seen = state["seen"]


def test_a_callback_remembers_what_it_knew_at_the_checkpoint(tmp_path):
    """Two of one class are kept apart; steps after the checkpoint are forgotten."""
    first = [Counting(), Counting([-1])]
    run_fit(run=Run(tmp_path), callbacks=[*first, StopAt(7)])
    again = [Counting(), Counting()]
    run_fit(run=Run(tmp_path), callbacks=again)
    assert again[0].seen == list(range(1, 21))
    assert again[1].seen == [-1, *range(1, 21)]


def test_a_state_that_is_no_json_is_said_and_the_run_is_saved_without_it(tmp_path):
    class Bad(Counting):
        def state(self):
            return {1, 2}

    with pytest.warns(UserWarning, match="the state of Bad is not saved"):
        run_fit(run=Run(tmp_path), callbacks=[Bad()])
    assert (tmp_path / "checkpoints" / "20").exists()


@pytest.mark.parametrize(
    ("make", "extra"),
    [(TensorBoard, "tensorboard"), (lambda: WeightsAndBiases("project"), "wandb")],
)
def test_a_missing_package_is_said_with_the_remedy(make, extra, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match=rf"pip install 'diffusion-eqx\[{extra}\]'"):
        make()


# TensorBoard.


def events_of(folder: Path) -> list:
    """The events of a folder as TensorBoard takes them: what a later session starts over is dropped."""
    from tensorboardX.proto.event_pb2 import Event, SessionLog

    found = []
    for path in sorted(folder.iterdir()):
        content = path.read_bytes()
        while content:
            (length,) = struct.unpack("<Q", content[:8])
            event = Event.FromString(content[12 : 12 + length])
            content = content[12 + length + 4 :]
            if event.session_log.status == SessionLog.START:
                found = [one for one in found if one.step < event.step]
            found.append(event)
    return found


def numbers_of(events) -> dict[int, dict[str, float]]:
    found: dict[int, dict[str, float]] = {}
    for event in events:
        for value in event.summary.value:
            if value.HasField("simple_value"):
                found.setdefault(event.step, {})[value.tag] = value.simple_value
    return found


class Drawing:
    """A model whose pictures take no time: noise of a size that its network decides."""

    num_classes = None
    config = DDIMConfig()

    def __init__(self, network):
        self.size = jnp.tanh(jnp.abs(network.layers[0].weight).sum())

    def sample(self, count, sampler, *, steps, labels, key):
        return self.size * jax.random.uniform(key, (count, 4, 4, 1), minval=-1.0)


def test_tensorboard_has_the_log_and_the_pictures_of_a_run_that_was_stopped(tmp_path, monkeypatch):
    """The metrics of a callback given after it too; what was redone after a kill stands there once."""
    second = time.time()  # Both starts lie in one second.
    monkeypatch.setattr("time.time", lambda: second)
    settings = config(preview_every=8)
    mine = Answers(evaluate={"mine": 0.5})
    for stop in (StopAt(12), StopAt()):
        run = Run(tmp_path, assemble=Drawing)
        run_fit(settings, run=run, callbacks=[TensorBoard(), mine, stop])
        if stop.steps:  # As if it had been killed: steps 11 and 12 come again.
            shutil.rmtree(tmp_path / "checkpoints" / "12")
    events = events_of(tmp_path / "tensorboard")
    rows, speeds = (
        [json.loads(line) for line in (tmp_path / name).read_text().splitlines()]
        for name in ("log.jsonl", "timings.jsonl")
    )
    found = numbers_of(events)
    assert list(found) == [5, 10, 15, 20]
    for row, speed in zip(rows, speeds, strict=True):
        expected = {name: value for name, value in (row | speed).items() if name != "step"}
        assert "mine" in expected
        assert found[row["step"]] == pytest.approx(expected, rel=1e-6)
    pictures = [(e.step, v.image) for e in events for v in e.summary.value if v.HasField("image")]
    assert [step for step, _ in pictures] == [8, 16, 20]
    shown, written = (
        np.asarray(Image.open(source).convert("RGB"))
        for source in (io.BytesIO(pictures[-1][1].encoded_image_string), tmp_path / "preview.png")
    )
    np.testing.assert_array_equal(shown, written)


def test_tensorboard_needs_a_folder(tmp_path):
    with pytest.warns(UserWarning, match="a run without a folder needs TensorBoard"):
        run_fit(callbacks=[TensorBoard()])
    run_fit(callbacks=[TensorBoard(tmp_path / "events")])
    assert list(numbers_of(events_of(tmp_path / "events"))) == [5, 10, 15, 20]


# Weights & Biases.


@pytest.mark.slow
def test_weights_and_biases_has_the_log_of_a_run_that_was_stopped(tmp_path, monkeypatch):
    """Offline, by their own program; both parts of the run have one number there."""
    wandb = pytest.importorskip("wandb")
    from wandb.proto.wandb_internal_pb2 import Record
    from wandb.sdk.internal.datastore import DataStore

    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
    for stop in (StopAt(12), StopAt()):
        run_fit(run=Run(tmp_path), callbacks=[WeightsAndBiases("toys", name="first"), stop])
    wandb.teardown()
    rows, runs = [], set()
    for path in sorted(tmp_path.glob("wandb/offline-run-*/*.wandb")):
        store = DataStore()
        store.open_for_scan(str(path))
        while (data := store.scan_data()) is not None:
            record = Record.FromString(data)
            if record.HasField("history"):
                items = {i.key or ".".join(i.nested_key): i.value_json for i in record.history.item}
                rows.append({k: json.loads(v) for k, v in items.items() if not k.startswith("_")})
            if record.HasField("run"):
                runs.add((record.run.project, record.run.run_id))
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    speeds = [json.loads(line) for line in (tmp_path / "timings.jsonl").read_text().splitlines()]
    assert rows == [row | speed for row, speed in zip(lines, speeds, strict=True)]
    assert len(runs) == 1
    assert runs.pop()[0] == "toys"
