"""Processes find each other, name those that are missing, and stop together."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from diffusion_eqx.training import fit, join_processes, make_recipe
from tests.test_devices import free_port
from tests.toy_training import Points, denoising, net, toy_config, toy_points
from tests.train_onward import STEPS

ROOT = Path(__file__).parents[1]


def started(folder, port, process, *, timeout=240, steps=10) -> subprocess.Popen:
    arguments = [folder, port, 2, process, timeout, steps]
    return launched([sys.executable, "-m", "tests.train_together", *map(str, arguments)])


def launched(command: list[str]) -> subprocess.Popen:
    return subprocess.Popen(
        command,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "export")])},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for(path: Path) -> None:
    for _ in range(1200):
        if path.exists():
            return
        time.sleep(0.1)
    raise TimeoutError(path)


def test_processes_without_numbers_are_refused(tmp_path, monkeypatch):
    for name in ("SLURM_PROCID", "OMPI_COMM_WORLD_RANK"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ValueError, match=r"No launcher tells it .*SLURM_PROCID.*give processes"):
        join_processes(tmp_path, coordinator="localhost:1")
    with pytest.raises(ValueError, match=r"process must be in 0 … 1; got 2"):
        join_processes(tmp_path, coordinator="localhost:1", processes=2, process=2)
    monkeypatch.setenv("SLURM_PROCID", "7")
    monkeypatch.setenv("SLURM_NTASKS", "4")
    with pytest.raises(ValueError, match=r"process must be in 0 … 3; got 7"):
        join_processes(tmp_path)
    assert not (tmp_path / "processes").exists()


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.parametrize("old", ["joined", "long ago", "none"])
def test_a_process_that_is_missing_is_named_when_the_time_is_up(tmp_path, old):
    """What a start before has left is not taken for it."""
    if old != "none":
        (tmp_path / "processes").mkdir()
        other = {"host": "h", "address": "a", "pid": 1, "time": 0.0, "joined": old == "joined"}
        file = tmp_path / "processes" / "1"
        file.write_text(json.dumps(other))
        if old == "long ago":
            os.utime(file, (1e9, 1e9))
    process = started(tmp_path, free_port(), 0, timeout=2)
    _, error = process.communicate(timeout=300)
    assert process.returncode == 1
    (line,) = [line for line in error.splitlines() if line.startswith("gave up")]
    assert line.startswith("gave up after 2 s: process 1 has not started; there are 0 on ")
    assert re.search(r"localhost:\d+ is each host's own address", line)
    assert not (tmp_path / "processes" / "0").exists()


@pytest.mark.long
@pytest.mark.slow
def test_a_process_that_is_late_is_waited_for_and_all_stop_after_the_same_step(tmp_path):
    """SIGTERM reaches one of them; later both go on, and end as a run that was never stopped."""
    port = free_port()
    first = started(tmp_path, port, 0, steps=100_000)
    wait_for(tmp_path / "processes" / "0")
    assert first.poll() is None
    second = started(tmp_path, port, 1, steps=100_000)
    assert second.stdout is not None
    # Lines of the library that connects them come before.
    assert any(line == "step 1\n" for line in second.stdout)
    members = [json.loads((tmp_path / "processes" / name).read_text()) for name in ("0", "1")]
    assert [member["pid"] for member in members] == [first.pid, second.pid]
    assert members[0].keys() == {"host", "address", "pid", "time", "joined"}
    second.send_signal(signal.SIGTERM)
    stops = set()
    for process in (first, second):
        _, error = process.communicate(timeout=300)
        assert process.returncode != 0
        found = re.search(r"TrainingInterrupted: the run stopped after step (\d+)", error)
        assert found, error
        stops.add(int(found[1]))
    (stop,) = stops
    assert (tmp_path / "checkpoints" / str(stop)).exists()

    steps = stop + 10
    port = free_port()
    both = [started(tmp_path, port, number, steps=steps) for number in (0, 1)]
    ends = []
    for process in both:
        out, error = process.communicate(timeout=300)
        assert process.returncode == 0, error
        ends.append(out.splitlines()[-1].split())
    assert ends[0] == ends[1]
    settings = toy_config(steps)
    _, rows = fit(net(), Points(), make_recipe(settings, denoising), settings)
    assert ends[0][:2] == ["done", str(steps)]
    assert float(ends[0][2]) == pytest.approx(rows[-1]["loss"], rel=1e-4)


@pytest.mark.long
@pytest.mark.slow
def test_one_process_then_two_then_four_see_the_batches_of_one(tmp_path):
    """Each reads its own rows only, and the losses are those of a run in one process."""
    config = toy_config(STEPS, log_every=1)
    whole = toy_points().batches(config.batch_size, seed=config.seed)
    losses = []
    for processes, stop in ((1, 2), (2, 4), (4, STEPS)):
        port = free_port()
        command = [sys.executable, "-m", "tests.train_onward", str(tmp_path), str(stop)]
        together = [
            launched([*command, str(processes), str(number), str(port)])
            for number in range(processes)
        ]
        found = []
        for process in together:
            out, error = process.communicate(timeout=300)
            assert process.returncode == 0, error
            found.append(json.loads(out.splitlines()[-1]))
        assert all(one["losses"] == found[0]["losses"] for one in found)
        # The batch by which the data are known again.
        assert {one["whole"] for one in found} == {1}
        for number in range(len(losses), stop):
            rows = [row for one in found for row in one["read"][str(number)]]
            assert rows == whole[number]["images"].tolist()
        losses = found[0]["losses"]
        assert len(losses) == stop
    _, alone = fit(net(), toy_points(), make_recipe(config, denoising), config)
    assert losses == pytest.approx([row["loss"] for row in alone], rel=1e-5)
