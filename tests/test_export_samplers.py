"""Every sampler of the catalogue leaves Python: its exported programs draw what Python draws."""

import json

import pytest
from diffusion_eqx_export import export_sampler, read_artifact, verify

from diffusion_eqx.samplers import SAMPLERS
from tests.artifacts import tiny_saved_model
from tests.test_native import run

SOLVERS = ["diffrax:Heun", "diffrax:Tsit5", "adaptive:Tsit5", "sde:Euler", "sde:ShARK"]
# Plugins differ in the last bits; what a sampler makes of them is its own.
NATIVE = ["heun", "edm", "dpmpp_3m", "unipc", "deis", "diffrax:Tsit5", "adaptive:Tsit5"]


def options_for(sampler):
    """Adaptive samplers need room; unguided, a network of random weights is not so stiff."""
    return {"steps": 900, "guidance_scale": None} if sampler.startswith("adaptive") else {}


def exported(folder, sampler, **options):
    path = folder / "sampler.safetensors"
    options = {"platforms": ("cpu",), "batch_sizes": (2,), "steps": 10, **options}
    export_sampler(tiny_saved_model(), path, sampler=sampler, **options)
    return path


@pytest.mark.slow
@pytest.mark.parametrize("sampler", [*SAMPLERS, *SOLVERS, "adaptive-sde:Heun"])
def test_every_sampler_is_exported(sampler, tmp_path):
    artifact = read_artifact(exported(tmp_path, sampler, **options_for(sampler)))
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
    with pytest.raises(ValueError, match="implicit"):
        exported(tmp_path, "diffrax:Kvaerno3")
    assert not list(tmp_path.iterdir())
    with pytest.raises(ValueError, match="CFG"):
        exported(tmp_path, "heun", guidance="cfg++")
    with pytest.raises(ValueError, match="more steps"):
        exported(tmp_path, "adaptive:Tsit5", steps=3)


@pytest.mark.native
@pytest.mark.slow
@pytest.mark.parametrize("sampler", NATIVE)
def test_native_images_are_pythons(sampler, tmp_path):
    """By the artifact's own reference, on the default plugin."""
    path = exported(tmp_path, sampler, **options_for(sampler))
    report = json.loads(run("verify", path, "--json").stdout)
    assert report["noise"]["difference"] == 0.0
    # An adaptive solver's choice of steps turns on the last bit: two devices agree to its own error, the
    # fifty tolerances of test_convergence.py.
    assert report["image"]["difference"] <= (5e-2 if sampler.startswith("adaptive") else 5e-5)


@pytest.mark.native
def test_an_image_that_does_not_arrive_is_an_error(tmp_path):
    path = exported(tmp_path, "adaptive:Tsit5", **options_for("adaptive:Tsit5"))
    done = run("sample", path, "-o", tmp_path / "x.png", "--steps", 2, "--seed", 1, code=7)
    assert b"needs more --steps" in done.stderr
    assert not (tmp_path / "x.png").exists()
