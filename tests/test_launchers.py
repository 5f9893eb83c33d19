"""The launchers in examples/launch: what they start is what there is, and those for one machine run."""

import json
import os
import shutil
import subprocess
import sys
import types
from pathlib import Path

import pytest
import tyro
import yaml

from diffusion_eqx.models import load_model
from tests.test_cli_train import KINDS, QUICK
from tests.test_devices import free_port

ROOT = Path(__file__).parents[1]
LAUNCH = ROOT / "examples" / "launch"


def options_of(arguments: list[str]):
    """The options of a command line, as `diffusion-eqx train` takes them."""
    from diffusion_eqx.cli import train_of

    assert arguments[:2] == ["diffusion-eqx", "train"]
    return tyro.cli(train_of("ddim"), args=arguments[2:])


def environment(tools: Path | None = None) -> dict[str, str]:
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    python = os.pathsep.join([str(ROOT), str(ROOT / "export")])
    tools_first = path if tools is None else f"{tools}:{path}"
    return {**os.environ, "PATH": tools_first, "PYTHONPATH": python}


@pytest.mark.parametrize("script", sorted(LAUNCH.glob("*.sh")), ids=lambda path: path.name)
def test_every_script_is_one(script):
    subprocess.run(["bash", "-n", script], check=True)
    assert os.access(script, os.X_OK)


def test_every_launcher_is_on_the_page_of_clusters():
    page = (ROOT / "docs" / "pages" / "training" / "cluster.md").read_text()
    for path in LAUNCH.iterdir():
        if path.is_file():
            assert f"examples/launch/{path.name}" in page, path.name


def test_kubernetes_is_told_options_that_there_are():
    found = yaml.safe_load((LAUNCH / "jobset.yaml").read_text())
    assert (found["apiVersion"], found["kind"]) == ("jobset.x-k8s.io/v1alpha2", "JobSet")
    (job,) = found["spec"]["replicatedJobs"]
    name, pods = found["metadata"]["name"], job["template"]["spec"]
    (container,) = pods["template"]["spec"]["containers"]
    given = [a.replace("$(JOB_COMPLETION_INDEX)", "3") for a in container["command"]]
    options = options_of(given)
    assert options.coordinator == f"{name}-{job['name']}-0-0.{name}:29400"
    assert options.processes == pods["completions"] == pods["parallelism"]
    assert options.process == 3
    (volume,) = pods["template"]["spec"]["volumes"]
    (mount,) = container["volumeMounts"]
    assert mount["name"] == volume["name"]
    assert options.out.is_relative_to(mount["mountPath"])


@pytest.mark.parametrize(("status", "requeued"), [(0, False), (1, False), (130, True)])
def test_slurm_is_told_options_that_there_are_and_a_stopped_run_to_begin_again(
    tmp_path, status, requeued
):
    """By stand-ins for its commands, which write down what they are told."""
    for name, code in (("srun", status), ("scontrol", 0)):
        tool = tmp_path / name
        tool.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" > "{tmp_path}/{name}.told"\nexit {code}\n')
        tool.chmod(0o755)
    done = subprocess.run(
        [LAUNCH / "slurm.sh", "--out", "a run", "--data", "digits"],
        env={**environment(tmp_path), "SLURM_JOB_ID": "17"},
        check=False,
    )
    assert done.returncode == status
    first, *told = (tmp_path / "srun.told").read_text().splitlines()
    assert first == "--kill-on-bad-exit=1"
    options = options_of(told)
    assert (options.out, options.data, options.coordinator) == (Path("a run"), "digits", "auto")
    assert (tmp_path / "scontrol.told").exists() == requeued
    if requeued:
        assert (tmp_path / "scontrol.told").read_text().split() == ["requeue", "17"]


@pytest.mark.long
@pytest.mark.slow
def test_hosts_are_started_and_train_together(tmp_path):
    """Two processes on this machine; a blank in the name of the folder comes through."""
    out = tmp_path / "a run"
    done = subprocess.run(
        [
            *(LAUNCH / "hosts.sh", "localhost localhost", "-o", out, "--data", "digits"),
            *("--cpu-devices", "1", "--kind", "dit", *QUICK, *KINDS["dit"]),
        ],
        env={**environment(), "PORT": str(free_port())},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (launch,) = json.loads((out / "run.json").read_text())["launches"]
    assert launch["processes"] == 2
    assert sum(launch["devices"].values()) == 2
    assert sorted(path.name for path in (out / "processes").iterdir()) == ["0", "1"]
    assert load_model(out / "model.safetensors").num_classes == 10
    assert done.stderr.count("wrote ") == 1


def test_hosts_that_fail_are_a_failure(tmp_path):
    done = subprocess.run(
        [LAUNCH / "hosts.sh", "localhost", "--out", tmp_path / "run.safetensors"],
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "--out is the folder of the run" in done.stderr


@pytest.mark.long
@pytest.mark.slow
def test_what_ray_is_given_trains(tmp_path, monkeypatch):
    """By a stand-in for Ray that calls the function of the worker here."""
    told = {}

    class JaxTrainer:
        def __init__(self, work, *, train_loop_config, scaling_config, run_config):
            told.update(scaling_config | run_config)
            self.fit = lambda: work(train_loop_config)

    modules = {
        "ray": {},
        "ray.train": {"RunConfig": dict, "ScalingConfig": dict},
        "ray.train.v2": {},
        "ray.train.v2.jax": {"JaxTrainer": JaxTrainer},
    }
    for name, members in modules.items():
        module = types.ModuleType(name)
        vars(module).update(members)
        monkeypatch.setitem(sys.modules, name, module)
    script = tmp_path / "ray_train.py"
    shutil.copy(LAUNCH / "ray_train.py", script)
    monkeypatch.syspath_prepend(tmp_path)
    import ray_train  # pyright: ignore[reportMissingImports]

    out = tmp_path / "run"
    ray_train.main(["--out", str(out), "--workers", "3", "--steps", "2", "--batch-size", "8"])
    assert (told["num_workers"], told["storage_path"]) == (3, str(out))
    assert load_model(out / "model.safetensors").num_classes == 10
