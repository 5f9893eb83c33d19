"""Every sampler leaves Python, a user's own too: its exported programs draw what Python draws."""

import json
import os
import subprocess
import sys
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from diffusion_eqx_export import NotExportable, read_artifact, verify

from diffusion_eqx.guidance import (
    AdaptiveProjectedGuidance,
    Autoguidance,
    ClassifierFreeGuidance,
    DPSGuidance,
    DynamicThresholding,
)
from diffusion_eqx.samplers import (
    GRIDS,
    SAMPLERS,
    AbstractSampler,
    BrownianNoise,
    DDIMSampler,
    DDPMSampler,
    GivenGrid,
    KarrasGrid,
    find_sampler,
    number,
    numbers,
)
from tests.artifacts import export_tiny, tiny_model
from tests.test_native import run

ROOT = Path(__file__).parents[1]

# Many programs are compiled here.
pytestmark = pytest.mark.long

SOLVERS = ["diffrax:Heun", "diffrax:Tsit5", "adaptive:Tsit5", "sde:Euler", "sde:ShARK"]
# Plugins differ in the last bits; what a sampler makes of them is its own.
NATIVE = ["heun", "edm", "dpm++3m", "unipc", "deis", "diffrax:Tsit5", "adaptive:Tsit5"]


def options_for(sampler):
    """Adaptive samplers need room; unguided, a network of random weights is not so stiff."""
    if sampler.startswith("adaptive"):
        return {"steps": 900}
    return {"guidance": "cfg"}


def exported(folder, sampler, **options):
    options = {"batch_sizes": (2,), **options}
    return export_tiny(folder / "sampler.safetensors", sampler, **options)


def verified(artifact) -> tuple[float, float]:
    """How far noise and images of the programs are from those that Python drew."""
    verdict = verify(read_artifact(artifact))
    return verdict.noise, verdict.image


def verified_elsewhere(artifact) -> tuple[float, float]:
    """The same of an artifact made anew, in a process as a user starts it."""
    code = (
        "import sys; from tests import test_export_samplers as t; from pathlib import Path; "
        "folder, sampler = Path(sys.argv[1]), sys.argv[2]; "
        "print(*t.verified(t.exported(folder, sampler, **t.options_for(sampler))))"
    )
    folder = artifact.parent / "elsewhere"
    folder.mkdir()
    name = read_artifact(artifact).manifest["sample"]["sampler"]
    command = [sys.executable, "-c", code, str(folder), name]
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'export'}", "EQX_ON_ERROR": "off"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    noise, image = map(float, done.stdout.split())
    return noise, image


@pytest.mark.slow
@pytest.mark.parametrize("sampler", [*SAMPLERS, *SOLVERS, "adaptive-sde:Heun"])
def test_every_sampler_is_exported(sampler, tmp_path):
    artifact = read_artifact(exported(tmp_path, sampler, **options_for(sampler)))
    # An adaptive SDE takes or refuses a step by its error, which a rounding decides: it is compared as a
    # user would run it, and not by machine code made in haste (conftest.py).
    judge = verified_elsewhere if sampler.startswith("adaptive-sde") else verified
    noise, image = judge(tmp_path / "sampler.safetensors")
    assert noise == 0.0
    assert image <= 5e-5
    parameters = artifact.manifest["parameters"]
    assert numbers(find_sampler(sampler)).keys() <= parameters.keys()
    assert artifact.manifest["sample"]["sampler"] == sampler


@pytest.mark.slow
@pytest.mark.parametrize("grid", GRIDS)
def test_every_grid_is_exported(grid, tmp_path):
    assert verify(read_artifact(exported(tmp_path, "ddim", grid=grid))).passed


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sampler", "options"),
    [
        (DDIMSampler(eta=1.0, noise=BrownianNoise()), {}),
        (DDIMSampler(grid=KarrasGrid()), {"guidance": 3.0}),
        ("ddim", {"guidance": "cfg++"}),
        ("dpm++2m", {"guidance": AdaptiveProjectedGuidance(interval=(0.2, 0.8))}),
        ("ddpm", {"guidance": (ClassifierFreeGuidance(3.0), DynamicThresholding())}),
        ("heun", {"guidance": "weak"}),
        (None, {"steps": None, "temperature": 0.5}),
    ],
    ids=["Brownian", "a number", "cfg++", "interval", "two", "weak model", "recommended"],
)
def test_values_are_exported(sampler, options, tmp_path):
    if options.get("guidance") == "weak":
        weak = eqx.tree_at(
            lambda d: d.backbone, tiny_model().denoiser, tiny_model().denoiser.backbone
        )
        options = {"guidance": Autoguidance(weak, 1.5)}
    artifact = read_artifact(exported(tmp_path, sampler, **options))
    assert verify(artifact).passed
    assert not foreign_weights(artifact)


@pytest.mark.slow
def test_arrays_of_a_guidance_are_weights(tmp_path):
    """A weak model's own arrays are named by their place; shared ones are stored once."""
    weak = eqx.tree_at(
        lambda d: d.backbone.conv_out.weight, tiny_model().denoiser, replace_fn=lambda w: 0.5 * w
    )
    artifact = read_artifact(exported(tmp_path, "ddim", guidance=Autoguidance(weak)))
    (name,) = foreign_weights(artifact)
    assert name.endswith("guidance.weak.backbone.conv_out.weight")
    assert verify(artifact).passed


def foreign_weights(artifact) -> list[str]:
    """Weights that are not arrays of the model."""
    own = ("weights/backbone.", "weights/schedule.")
    return [n for n in artifact.tensors if n.startswith("weights/") and not n.startswith(own)]


class OwnSampler(AbstractSampler):
    """Extrapolates x0 from the one before, and adds noise: it has numbers, a memory and random draws."""

    strength: float = number(0.1, minimum=0.0, maximum=1.0, about="share of the last difference")
    wobble: float = number(0.0, neutral=0.0, minimum=0.0, maximum=2.0, about="scale of the noise")
    offset: jax.Array = eqx.field(default_factory=lambda: jnp.full((1,), 0.01), kw_only=True)

    def init(self, denoise, x, t, s):
        return {"x0": jnp.zeros_like(x), "steps taken": jnp.zeros(len(x), jnp.int32)}

    def step(self, denoise, state, t, s):
        x0, eps = denoise(state.x, t)
        taken = state.memory["steps taken"]
        again = state.column(taken) > 0
        ahead = x0 + jnp.where(again, self.strength * (x0 - state.memory["x0"]), self.offset)
        noise = self.wobble * s.sigma * self.noise(state, t, s)
        return state.moved(s.noised(ahead, eps) + noise, {"x0": x0, "steps taken": taken + 1})


@pytest.fixture(scope="module")
def own_artifact(tmp_path_factory):
    return exported(
        tmp_path_factory.mktemp("own"), OwnSampler(0.2, grid=KarrasGrid()), guidance=2.0
    )


def test_a_users_own_sampler_is_exported(own_artifact):
    artifact = read_artifact(own_artifact)
    assert verify(artifact).passed
    manifest = artifact.manifest
    assert manifest["sample"]["sampler"] == "OwnSampler"
    assert manifest["parameters"]["strength"] == {
        "dtype": "F32",
        "default": 0.2,
        "min": 0.0,
        "max": 1.0,
        "about": "share of the last difference",
    }
    assert [array["name"] for array in manifest["state"]] == [
        *("x", "keys", "memory.steps taken", "memory.x0")
    ]
    assert "weights/sampler.offset" in artifact.tensors


@pytest.mark.native
def test_a_users_own_sampler_runs_natively_with_other_numbers(own_artifact, tmp_path):
    run(
        *("sample", own_artifact, "-o", tmp_path / "x.npy", "-n", 3, "--seed", 5, "--steps", 6),
        *("--set", "strength=0.7", "--set", "wobble=0.5", "--guidance-scale", 3, "--label", 1),
    )
    expected = tiny_model().sample(
        3,
        OwnSampler(0.7, 0.5, grid=KarrasGrid()),
        steps=6,
        labels=1,
        guidance=3.0,
        key=jax.random.key(5),
    )
    np.testing.assert_allclose(np.load(tmp_path / "x.npy"), expected, rtol=0, atol=5e-5)


class Forgetful(OwnSampler):
    """Remembers one number for all examples."""

    def init(self, denoise, x, t, s):
        return {"count": jnp.asarray(0.0)}


class Swelling(DDIMSampler):
    """Remembers more after a step than before."""

    def step(self, denoise, state, t, s):
        return state.moved(denoise(state.x, t).x0, {"eps": state.x, "x": state.x})


class Eager(OwnSampler):
    """Asks the network before its first step."""

    def init(self, denoise, x, t, s):
        return {"x0": denoise(x, t).x0, "steps taken": jnp.zeros(len(x), jnp.int32)}


class Linear(eqx.Module):
    """An operator for measurements."""

    def __call__(self, x):
        return x[:, ::2]


@pytest.mark.parametrize(
    ("sampler", "options", "message"),
    [
        (Forgetful(), {}, "memory.count .* the batch as its first axis"),
        (Swelling(), {}, "from 2 arrays to 4"),
        (Eager(), {}, "before its first step"),
        (
            "ddim",
            {"guidance": DPSGuidance(operator=Linear())},
            r"DPSGuidance takes cond\['measurement'\]",
        ),
    ],
)
def test_what_format_1_cannot_hold_is_refused(sampler, options, message, tmp_path):
    with pytest.raises(NotExportable, match=message):
        exported(tmp_path, sampler, **options)
    assert not list(tmp_path.iterdir())


class Namesake(DDIMSampler):
    """Has a number of the guidance's name."""

    guidance_scale: float = number(1.0, minimum=0.0, maximum=2.0, about="something else")


class Stepper(DDIMSampler):
    """Has a number of the name that every artifact uses."""

    steps: float = number(1.0, minimum=0.0, maximum=2.0, about="something else")


@pytest.mark.parametrize(
    ("sampler", "options", "message"),
    [
        ("diffrax:Kvaerno3", {}, "implicit"),
        ("heun", {"guidance": "cfg++"}, "CFG"),
        ("adaptive:Tsit5", {"steps": 3}, "more steps"),
        (Namesake(), {"guidance": "cfg"}, "guidance_scale"),
        (Stepper(), {}, "called steps"),
        (DDIMSampler(grid=GivenGrid((1.0, 0.5, 0.0))), {}, "2 steps, but 10"),
    ],
)
def test_parts_that_do_not_go_together_are_refused(sampler, options, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        exported(tmp_path, sampler, **options)
    assert not list(tmp_path.iterdir())


def test_a_grid_of_given_times_has_its_number_of_steps(tmp_path):
    sampler = DDPMSampler(grid=GivenGrid((1.0, 0.7, 0.3, 0.0)))
    artifact = read_artifact(exported(tmp_path, sampler, steps=3))
    steps = artifact.manifest["parameters"]["steps"]
    assert (steps["min"], steps["default"], steps["max"]) == (3, 3, 3)
    assert artifact.manifest["reference"]["steps"] == 3
    assert verify(artifact).passed


def test_a_scale_that_depends_on_the_level_cannot_be_chosen(tmp_path):
    guidance = ClassifierFreeGuidance(lambda level: 1.0 + level.time)
    artifact = read_artifact(exported(tmp_path, "ddim", guidance=guidance))
    assert "guidance_scale" not in artifact.manifest["parameters"]
    assert "rescale" in artifact.manifest["parameters"]
    assert verify(artifact).passed


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
