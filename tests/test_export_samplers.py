"""Every sampler of the catalogue leaves Python: its exported programs draw what Python draws."""

import numpy as np
import pytest
from diffusion_eqx_export import export_sampler, read_artifact, verify
from diffusion_eqx_export.lowering import NotExportable

from diffusion_eqx.samplers import SAMPLERS
from tests.artifacts import small_saved_model

SOLVERS = ["diffrax:Heun", "diffrax:Tsit5", "adaptive:Tsit5", "sde:Euler", "sde:ShARK"]
# Plugins differ in the last bits; what a sampler makes of them is its own.
NATIVE = ["heun", "edm", "dpmpp_3m", "unipc", "deis", "diffrax:Tsit5", "adaptive:Tsit5"]


def exported(folder, sampler, **options):
    path = folder / "sampler.safetensors"
    options = {"platforms": ("cpu",), "batch_sizes": (2,), "steps": 10, **options}
    export_sampler(small_saved_model(), path, sampler=sampler, **options)
    return path


@pytest.mark.slow
@pytest.mark.parametrize("sampler", [*SAMPLERS, *SOLVERS, "adaptive-sde:Heun"])
def test_every_sampler_is_exported(sampler, tmp_path):
    steps = 100 if sampler.startswith("adaptive") else 10
    artifact = read_artifact(exported(tmp_path, sampler, steps=steps))
    if sampler.startswith("adaptive"):
        # The reference has 10 steps, too few for these to arrive, which they must say.
        assert np.isnan(artifact.tensors["reference/image"]).any()
        return
    verdict = verify(artifact)
    assert verdict.noise == 0.0
    assert verdict.image <= 5e-5
    parameters = artifact.manifest["parameters"]
    own = SAMPLERS[sampler].parameters if sampler in SAMPLERS else {}
    assert own.keys() <= parameters.keys()


@pytest.mark.parametrize(
    "options", [{"guidance": "cfg++"}, {"guidance": "apg"}, {"brownian": True}]
)
def test_guidance_and_paths_are_exported(options, tmp_path):
    parameters = {"eta": 1.0} if "brownian" in options else {}
    assert verify(read_artifact(exported(tmp_path, "ddim", **options, **parameters))).passed


def test_what_no_plugin_can_run_is_refused(tmp_path):
    """An implicit solver solves linear systems by LAPACK."""
    with pytest.raises((NotExportable, ValueError)):
        exported(tmp_path, "diffrax:Kvaerno3")
    assert not list(tmp_path.iterdir())
    with pytest.raises(ValueError, match="CFG"):
        exported(tmp_path, "heun", guidance="cfg++")
