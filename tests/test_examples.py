"""The examples run, in their reduced setting, and give the figures that they promise."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).parents[1]


def run(name: str, folder: Path) -> tuple[str, dict]:
    """What an example prints, and the figures that it leaves."""
    done = subprocess.run(
        [sys.executable, ROOT / "examples" / f"{name}.py", "--out", folder],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "export")])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout, json.loads((folder / "results.json").read_text())


@pytest.mark.slow
def test_classifier_guidance(tmp_path):
    printed, results = run("classifier_guidance", tmp_path)
    by_scale = {float(scale): share for scale, share in results["accuracy by scale"].items()}
    assert results["judge's accuracy on unseen digits"] > 0.85
    assert by_scale[0.0] < 0.25
    assert by_scale[1.0] > 0.5
    assert max(by_scale.values()) > 0.8
    assert f"{by_scale[2.0]:.1%}" in printed
    with Image.open(tmp_path / "guided.png") as picture:
        assert picture.size == (6 * (10 * 10 + 2), 6 * (5 * 10 + 2))
        assert len(picture.getcolors()) > 50


def test_custom_schedule(tmp_path):
    """Three samplers under a user's schedule come as near to true samples as true samples do."""
    printed, results = run("custom_schedule", tmp_path)
    assert results.keys() == {"true", "ddpm", "unipc", "sde:Heun"}
    assert max(results.values()) < 2 * results["true"] < 0.04
    assert "unipc, 12 steps" in printed
    with Image.open(tmp_path / "custom_schedule.png") as picture:
        assert picture.width > 3 * picture.height
