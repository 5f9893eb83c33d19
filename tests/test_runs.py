"""Laws of a run's files: damage is found, divergence is left behind, averages are made afterwards."""

import itertools
import json
import os
import shutil
import subprocess
import sys
import time
import warnings
from collections import namedtuple
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from diffusion_eqx.training import (
    Callback,
    Checkpoints,
    Run,
    TrainingDiverged,
    averaged,
    digest,
    make_recipe,
    reconstruct_average,
)
from tests.test_fit import StopAt, config, run_fit, same, without_times
from tests.toy_training import Points, denoising, net

ROOT = Path(__file__).parents[1]

# The fingerprint of arrays.


def test_any_flipped_bit_changes_the_digest():
    rng = np.random.default_rng(0)
    tree = {
        "float32": rng.normal(size=(5, 7)).astype(np.float32),
        "bfloat16": jnp.asarray(rng.normal(size=(3, 4)), jnp.bfloat16),
        "int32": rng.integers(0, 9, (4,), dtype=np.int32),
        "uint8": rng.integers(0, 255, (6,), dtype=np.uint8),
        "bool": np.asarray([True, False]),
        "scalar": np.float32(2.0),
    }
    tree = {name: np.asarray(array) for name, array in tree.items()}
    before = digest(tree)
    assert digest(tree) == before
    for name, array in tree.items():
        for bit in rng.integers(0, 8 * array.nbytes, 12):
            if array.dtype == bool:
                continue
            raw = bytearray(array.tobytes())
            raw[bit // 8] ^= 1 << (bit % 8)
            changed = np.frombuffer(bytes(raw), array.dtype).reshape(array.shape)
            assert digest({**tree, name: changed}) != before, name
    assert digest({**tree, "bool": ~tree["bool"]}) != before
    assert digest(tree, "a word") != before
    swapped = tree["float32"].copy()
    swapped[[0, 1]] = swapped[[1, 0]]
    assert digest({**tree, "float32": swapped}) != before
    assert digest({**tree, "int32": tree["int32"].reshape(2, 2)}) != before


def test_the_digest_of_doubles_and_keys():
    with jax.enable_x64(True):
        one = digest([jnp.asarray([1.0, 2.0])])
        assert one != digest([jnp.asarray([1.0, np.nextafter(2.0, 3.0)])])
    assert digest([jax.random.key(0)]) != digest([jax.random.key(1)])


# A damaged checkpoint.


def checkpoints_of(folder) -> list[str]:
    return sorted(path.name for path in (folder / "checkpoints").iterdir())


def damage(folder) -> None:
    """Flip one bit of each data file of a checkpoint."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.stat().st_size > 200]
    assert files
    for path in files:
        raw = bytearray(path.read_bytes())
        raw[len(raw) // 2] ^= 1
        path.write_bytes(bytes(raw))


def shorten(folder) -> None:
    """Cut each file of a checkpoint in half."""
    for path in folder.rglob("*"):
        if path.is_file():
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def lose(folder) -> None:
    """Delete the arrays of a checkpoint."""
    shutil.rmtree(folder / "state")


@pytest.mark.parametrize("spoil", [damage, shorten, lose])
def test_a_spoilt_checkpoint_is_set_aside_and_the_one_before_used(tmp_path, spoil):
    whole, rows = run_fit(run=Run(tmp_path / "whole"))
    folder = tmp_path / "run"
    run_fit(run=Run(folder), callbacks=[StopAt(12)])
    assert checkpoints_of(folder) == ["10", "12", "5"]
    spoil(folder / "checkpoints" / "12")
    with pytest.warns(UserWarning, match=r"checkpoint of step 12 cannot be used .*bad-12"):
        state, rows_again = run_fit(run=Run(folder))
    assert same(state, whole)
    assert without_times(rows_again) == without_times(rows)
    assert "bad-12" in checkpoints_of(folder)
    assert (folder / "log.jsonl").read_text() == (tmp_path / "whole" / "log.jsonl").read_text()


def test_a_run_without_a_whole_checkpoint_is_refused_and_nothing_is_deleted(tmp_path):
    run_fit(run=Run(tmp_path), callbacks=[StopAt(12)])
    for step in ("10", "12", "5"):
        shorten(tmp_path / "checkpoints" / step)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(OSError, match=r"none of the checkpoints .* is whole.*overwrite=True"):
            run_fit(run=Run(tmp_path))
    assert checkpoints_of(tmp_path) == ["bad-10", "bad-12", "bad-5"]


def test_a_checkpoint_has_the_reports_up_to_it_however_late_it_is_written(tmp_path, monkeypatch):
    """Orbax writes in the background, while the run reports more."""
    checkpoints = Checkpoints(tmp_path)
    recipe = make_recipe(config(), denoising)
    state, rows = recipe.init(net(), key=jax.random.key(0)), [{"step": 0, "loss": 1.0}]
    kept = {}

    def save(step, args):
        kept["rows"] = args["rows"].item["rows"]
        return True

    monkeypatch.setattr(checkpoints._manager, "save", save)
    checkpoints.save(state, rows)
    rows.append({"step": 1, "loss": 0.5})
    rows[0]["loss"] = 2.0
    assert kept["rows"] == [{"step": 0, "loss": 1.0}]
    checkpoints.close()


def test_what_a_killed_process_had_begun_to_write_is_removed(tmp_path):
    run_fit(run=Run(tmp_path), callbacks=[StopAt(12)])
    torn = tmp_path / "checkpoints" / "15.orbax-checkpoint-tmp"
    torn.mkdir()
    (torn / "half").write_bytes(b"x" * 100)
    state, _ = run_fit(run=Run(tmp_path))
    assert int(state.step) == 20
    assert not torn.exists()


def test_a_full_disk_is_said_and_the_run_goes_on(tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    # There is room when the run begins, and none afterwards.
    free = itertools.chain([10**9], itertools.repeat(100))
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**9, 10**9, next(free)))
    with pytest.warns(UserWarning, match=r"0 MB free, and a checkpoint needs .* MB.*make room"):
        state, _ = run_fit(run=Run(tmp_path))
    assert int(state.step) == 20
    assert not any(name.isdigit() for name in checkpoints_of(tmp_path))


def toy(folder) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.train_toy", str(folder)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "export")])},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )


@pytest.mark.long
@pytest.mark.slow
def test_a_run_that_is_killed_twenty_times_ends_as_one_never_killed(tmp_path):
    """At random moments, of which most fall into the writing of a checkpoint, there being one every two
    steps: the last state is the same bit for bit, and so are log and snapshots."""
    whole, run = tmp_path / "whole", tmp_path / "run"
    expected, _ = toy(whole).communicate(timeout=300)
    assert "digest" in expected
    rng = np.random.default_rng(0)
    kills, printed = 0, ""
    while kills < 20 and "digest" not in printed:
        process = toy(run)
        assert process.stdout is not None
        # The first step is made once the network is compiled.
        printed = process.stdout.readline()
        time.sleep(rng.uniform(0.0, 0.25))
        process.kill()
        process.communicate()
        kills += 1
    printed, _ = toy(run).communicate(timeout=300)
    assert kills == 20
    assert printed.splitlines()[-1] == expected.splitlines()[-1]
    assert (run / "log.jsonl").read_text() == (whole / "log.jsonl").read_text()
    one, other = (
        {path.name: path.read_bytes() for path in (folder / "averages").glob("*.safetensors")}
        for folder in (whole, run)
    )
    assert one == other


# Divergence.


class Steep(Callback):
    """Fails the run unless it sees the learning rates that are expected."""

    def __init__(self):
        self.scales = []

    def step(self, run):
        self.scales.append(float(run._state.learning_rate_scale))


class Exploding(eqx.Module):
    """A loss that is not finite once weights have moved far."""

    limit: float = eqx.field(static=True)

    def __call__(self, network, x0, cond=None, *, key):
        far = sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(eqx.filter(network, eqx.is_array)))
        return jnp.where(far > self.limit, jnp.nan, -jnp.mean(network(x0)))


def test_a_run_may_go_back_and_on_with_a_smaller_rate(tmp_path):
    """The weights that the full rate reaches explode; with half of it they do not."""
    usual = {"steps": 17, "learning_rate": 0.05, "warmup_steps": 0}
    usual["learning_rate_schedule"] = "constant"
    settings = config(checkpoint_every=5, log_every=1, on_divergence="return", **usual)
    sizes = []

    class Measure(Callback):
        def step(self, run):
            leaves = jax.tree.leaves(eqx.filter(run.network(average=False), eqx.is_array))
            sizes.append(sum(float(jnp.sum(leaf**2)) for leaf in leaves))

    run_fit(config(log_every=1, **usual), loss=Exploding(np.inf), callbacks=[Measure()])
    exploding = Exploding(0.2 * sizes[14] + 0.8 * sizes[15])
    stopping = config(checkpoint_every=2, log_every=1, **usual)
    with pytest.raises(TrainingDiverged):
        run_fit(stopping, loss=exploding, run=Run(tmp_path / "stops"))
    rates = Steep()
    with pytest.warns(
        UserWarning, match=r"step 17 diverged; the run goes on from step 15 with 0.5"
    ):
        state, rows = run_fit(
            settings, loss=exploding, run=Run(tmp_path / "run"), callbacks=[rates]
        )
    assert int(state.step) == 17
    assert float(state.learning_rate_scale) == 0.5
    assert [row["step"] for row in rows] == list(range(1, 18))
    lines = (tmp_path / "run" / "log.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == list(range(1, 18))


def test_a_run_that_always_diverges_ends_after_three_returns(tmp_path):
    settings = config(on_divergence="return")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with pytest.raises(TrainingDiverged, match="step 13 "):
            run_fit(settings, data=Points(bad=12), run=Run(tmp_path))
    returns = [str(w.message) for w in caught if "goes on from step 10" in str(w.message)]
    assert [text.rsplit("with ")[1].split()[0] for text in returns] == ["0.5", "0.25", "0.125"]


# Averages made afterwards.


def test_averages_of_other_lengths_are_made_after_training(tmp_path):
    """They equal those that a run keeps, to a hundredth of the distance from the newest weights."""
    wanted = (0.06, 0.1, 0.15)
    common = {"steps": 400, "log_every": 0, "checkpoint_every": 0, "learning_rate": 1e-2}
    direct, _ = run_fit(config(ema_lengths=wanted, **common))
    run_fit(config(ema_lengths=(0.05, 0.12), **common), run=Run(tmp_path))
    assert len(list((tmp_path / "averages").glob("*.safetensors"))) >= 32
    raw = jax.tree.leaves(eqx.filter(direct.network, eqx.is_inexact_array))
    for length in wanted:
        found = reconstruct_average(tmp_path, length, net())
        exact = averaged(direct, f"length-{length:g}")
        pairs = [jax.tree.leaves(eqx.filter(tree, eqx.is_inexact_array)) for tree in (found, exact)]
        error, apart = (
            np.sqrt(
                sum(
                    np.sum((np.asarray(a) - np.asarray(b)) ** 2)
                    for a, b in zip(one, other, strict=True)
                )
            )
            for one, other in ((pairs[0], pairs[1]), (raw, pairs[1]))
        )
        assert error < 1e-2 * apart, length
        assert apart > 0.0


def test_an_average_may_end_earlier(tmp_path):
    common = {"steps": 200, "log_every": 0, "checkpoint_every": 0}
    run_fit(config(ema_lengths=(0.05, 0.1), ema_snapshots=40, **common), run=Run(tmp_path))
    half = run_fit(config(ema_lengths=(0.08,), **common), callbacks=[StopAt(100)])[0]
    found = reconstruct_average(tmp_path, 0.08, net(), step=100)
    exact = averaged(half, "length-0.08")
    np.testing.assert_allclose(found.layers[0].weight, exact.layers[0].weight, atol=2e-4)
    with pytest.raises(FileNotFoundError, match="no snapshot of averages of step 101"):
        reconstruct_average(tmp_path, 0.08, net(), step=101)


def test_snapshots_that_cannot_be_used_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"two ema_lengths"):
        reconstruct_average(tmp_path, 0.1, net())
    run_fit(config(ema_lengths=(0.05, 0.1), log_every=0), run=Run(tmp_path))
    other = eqx.nn.MLP(2, 2, 4, 1, key=jax.random.key(0))
    with pytest.raises(ValueError, match="another network"):
        reconstruct_average(tmp_path, 0.1, other)
    last = sorted((tmp_path / "averages").iterdir())[-1]
    with safe_open(last, framework="numpy") as file:
        metadata = file.metadata()
    arrays = load_file(last)
    name = next(iter(arrays))
    save_file({**arrays, name: arrays[name] + 1e-3}, last, metadata)
    with pytest.raises(ValueError, match="damaged"):
        reconstruct_average(tmp_path, 0.1, net())


def test_a_resumed_run_has_the_snapshots_of_one_never_stopped(tmp_path):
    settings = config(ema_lengths=(0.05, 0.1), ema_snapshots=10)
    run_fit(settings, run=Run(tmp_path / "whole"))
    run_fit(settings, run=Run(tmp_path / "run"), callbacks=[StopAt(13)])
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "13")
    run_fit(settings, run=Run(tmp_path / "run"))
    one, other = (
        {path.name: path.read_bytes() for path in (tmp_path / name / "averages").iterdir()}
        for name in ("whole", "run")
    )
    assert one == other
