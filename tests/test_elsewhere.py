"""The same images on several devices, and from machine code of the compiler's usual optimisation.

The other tests run on one device with machine code made in haste (conftest.py). Here a program is
started as a user would.
"""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from diffusion_eqx.samplers import SAMPLERS
from tests.drawn_elsewhere import COUNT, drawn, other_drivers

# Many programs are compiled here.
pytestmark = pytest.mark.long

ROOT = Path(__file__).parents[1]
# Of each way in which a sampler works, one.
FEW = {2: ["ddim", "dpm++3m-sde", "adaptive:Tsit5"], 8: ["edm"]}
EVERY = [*SAMPLERS, "diffrax:Tsit5", "sde:Heun", "adaptive:Tsit5"]


def elsewhere(path, names, **settings) -> dict[str, np.ndarray]:
    flags = " ".join(f for f in os.environ.get("XLA_FLAGS", "").split() if "optimization" not in f)
    environment = {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu", **settings}
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), str(ROOT / "export")])
    command = [sys.executable, "-m", "tests.drawn_elsewhere", str(path), *names]
    subprocess.run(command, check=True, env=environment, cwd=path.parent)
    with np.load(path) as found:
        return dict(found)


@pytest.mark.parametrize("devices", FEW)
def test_images_do_not_depend_on_the_number_of_devices(devices, tmp_path):
    """11 images, which 2 and 8 do not divide; labels go with their images."""
    names = FEW[devices]
    found = elsewhere(tmp_path / "images.npz", names, JAX_NUM_CPU_DEVICES=str(devices))
    assert found.pop("devices") == devices
    for name, images in {**{name: drawn(name) for name in names}, **other_drivers()}.items():
        # Heun's first steps magnify roundings, which another level of optimisation makes.
        tolerance = 1e-4 if name == "edm" else 1e-5
        np.testing.assert_allclose(found[name], images, atol=tolerance, err_msg=name)
        assert images.shape[-4] == COUNT
        assert images.std() > 0.1


@pytest.mark.long
def test_images_do_not_depend_on_the_level_of_optimisation(tmp_path):
    found = elsewhere(tmp_path / "images.npz", EVERY)
    assert found.pop("devices") == 1
    for name in EVERY:
        np.testing.assert_allclose(found[name], drawn(name), atol=1e-4, err_msg=name)
