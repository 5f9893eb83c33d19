"""Training on several devices and processes gives what one device gives."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[1]

# Each run is a process of its own, which compiles for half a minute.
pytestmark = [pytest.mark.long, pytest.mark.slow]


def started(
    folder, devices: int, sharded: bool = False, steps: int = 8, process=()
) -> subprocess.Popen:
    layout = "sharded" if sharded else "whole"
    arguments = [str(value) for value in (devices, layout, folder, steps, *process)]
    return subprocess.Popen(
        [sys.executable, "-m", "tests.train_on_devices", *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "export")])},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def result(process: subprocess.Popen) -> dict:
    out, error = process.communicate(timeout=600)
    assert process.returncode == 0, error
    return json.loads(out.splitlines()[-1])


def trained(*arguments, **options) -> dict:
    return result(started(*arguments, **options))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="module")
def alone(tmp_path_factory) -> dict:
    """The run on one device."""
    return trained(tmp_path_factory.mktemp("alone") / "run", 1)


def test_eight_devices_with_parts_of_the_state_equal_one(alone, tmp_path):
    """And each holds an eighth of it; its checkpoint goes on with two devices, and then with one."""
    folder = tmp_path / "run"
    first = trained(folder, 8, sharded=True, steps=4)
    assert first["step"] == 4
    assert first["share"] < 1.0 / 6.0
    second = trained(folder, 2, sharded=True, steps=6)
    third = trained(folder, 1, sharded=True)
    assert third["step"] == 8
    np.testing.assert_allclose(third["losses"], alone["losses"], rtol=1e-5)
    assert third["losses"][:6] == second["losses"]
    assert second["losses"][:4] == first["losses"]
    assert second["share"] < 0.6
    assert third["share"] == 1.0


def test_four_devices_with_the_whole_state_equal_one(alone, tmp_path):
    found = trained(tmp_path / "run", 4)
    np.testing.assert_allclose(found["losses"], alone["losses"], rtol=1e-5)
    assert found["share"] == 1.0


def test_two_processes_of_two_devices_equal_one_of_four(alone, tmp_path):
    """They read half of each batch each; the run goes on in one process."""
    port = free_port()
    both = [
        started(tmp_path / "run", 2, sharded=True, steps=4, process=(number, 2, port))
        for number in (0, 1)
    ]
    found = [result(process) for process in both]
    np.testing.assert_allclose(found[0]["losses"], alone["losses"][:4], rtol=1e-5)
    assert found[0] == found[1]
    on = trained(tmp_path / "run", 4, sharded=True)
    np.testing.assert_allclose(on["losses"], alone["losses"], rtol=1e-5)
