"""Examples and benchmarks run, in their reduced setting, and give the figures that they promise."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from filelock import FileLock
from PIL import Image

ROOT = Path(__file__).parents[1]


def run(name: str, folder: Path, *options: object) -> tuple[str, dict]:
    """What an example prints, and the figures that it leaves."""
    printed = printed_by(ROOT / "examples" / f"{name}.py", "--out", folder, *options, cwd=folder)
    return printed, json.loads((folder / "results.json").read_text())


def benchmark(name: str, folder: Path, *options: object) -> tuple[str, dict]:
    """What a benchmark prints, and the figures that it leaves."""
    printed = printed_by("-m", f"benchmarks.{name}", "--out", folder, *options, cwd=folder)
    return printed, json.loads((folder / f"{name}.json").read_text())


def printed_by(*arguments: object, cwd: Path) -> str:
    """What Python prints with these arguments."""
    done = subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "export")])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def looks_like_pictures(folder: Path, *names: str) -> None:
    """Each file is a picture of more than a few greys."""
    for name in names:
        with Image.open(folder / f"{name}.png") as picture:
            assert len(picture.convert("RGB").getcolors(1 << 24)) > 50, name


@pytest.fixture(scope="session")
def digits_model(tmp_path_factory, worker_id):
    """A class-conditional model of digits, trained once for all workers."""
    base = tmp_path_factory.getbasetemp()
    folder = (base if worker_id == "master" else base.parent) / "digits"
    path = folder / "model.safetensors"
    with FileLock(f"{folder}.lock"):
        if not path.exists():
            network = {
                "kind": "dit",
                "patch_size": 2,
                "hidden_size": 64,
                "depth": 4,
                "num_heads": 4,
            }
            model = {"backbone": {**network, "in_channels": 1, "num_classes": 10}}
            training = {"steps": 1500, "log_every": 500}
            options = base / "digits.yaml"
            options.write_text(json.dumps({"data": "digits", "model": model, "training": training}))
            program = Path(sys.executable).parent / "diffusion-eqx"
            subprocess.run([program, "train", options, "-o", folder], check=True)
    return path


@pytest.mark.example
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
    looks_like_pictures(tmp_path, "guided")


def test_custom_schedule(tmp_path):
    """Three samplers under a user's schedule come as near to true samples as true samples do."""
    printed, results = run("custom_schedule", tmp_path)
    assert results.keys() == {"true", "ddpm", "unipc", "sde:Heun"}
    assert max(results.values()) < 2 * results["true"] < 0.04
    assert "unipc, 12 steps" in printed
    with Image.open(tmp_path / "custom_schedule.png") as picture:
        assert picture.width > 3 * picture.height


@pytest.mark.example
def test_own_backbone(tmp_path):
    """Points drawn through a user's network lie on the ring that was asked for."""
    _, results = run("own_backbone", tmp_path)
    assert results.pop("real") < 0.03
    assert results.keys() == {"ddim", "heun", "diffrax:Tsit5"}
    assert max(results.values()) < 0.08
    looks_like_pictures(tmp_path, "own_backbone")


@pytest.mark.example
def test_colour_images(tmp_path):
    """After a reduced training, colours are much nearer to real ones than noise is."""
    _, results = run("colour_images", tmp_path, "--steps", 80, "--judged", 50)
    assert results["unseen"] < results["drawn"] < 0.5 * results["noise"]
    looks_like_pictures(tmp_path, "forward", "drawn", "progressive")


@pytest.mark.example
def test_score_model(tmp_path):
    """The reverse SDE and the probability-flow ODE, by four methods, give the class asked for."""
    _, results = run("score_model", tmp_path)
    assert results.keys() == {"sde:Euler", "predictor-corrector", "diffrax:Heun", "adaptive:Tsit5"}
    assert min(results.values()) > 0.8
    looks_like_pictures(tmp_path, "score_model", "trajectory")


@pytest.mark.example
def test_dit(tmp_path):
    """Guidance makes a transformer's images surer of their class, and more alike."""
    _, results = run("dit", tmp_path)
    assert results["2.0"]["accuracy"] > 0.85
    assert results["4.0"]["accuracy"] >= results["1.0"]["accuracy"]
    assert results["4.0"]["spread"] < results["1.0"]["spread"] < 1.2 * results["real"]["spread"]
    looks_like_pictures(tmp_path, "dit")


@pytest.mark.example
def test_sampling(digits_model, tmp_path):
    _, results = run("sampling", tmp_path, "--model", digits_model, "--judged", 50)
    assert results["DDIM, 50 steps"]["accuracy"] > 0.9
    assert results["UniPC, 10 steps"]["accuracy"] > 0.85
    looks_like_pictures(tmp_path, "sampling", "progressive")
    with Image.open(tmp_path / "progressive.gif") as animation:
        assert animation.n_frames == 11


@pytest.mark.example
def test_editing(digits_model, tmp_path):
    options = ("--count", 4, "--steps", 20, "--judged", 50, "--coarse-steps", 200)
    _, results = run("editing", tmp_path, "--model", digits_model, *options)
    accurate, usual = (results[f"inversion, 20 steps, {n} iterations"] for n in (15, 1))
    assert accurate < min(1e-3, 0.1 * usual)
    assert results["interpolation, ends"] < 1e-3
    assert results["sdedit, strength 0.2"] < results["sdedit, strength 1.0"]
    filled = [value for name, value in results.items() if name.startswith("inpainting")]
    assert len(filled) == 3
    assert all(value["kept"] for value in filled)
    assert 0.6 < filled[1]["seam"] < 1.5
    assert results["editing, edited, strength 1.0"]["hits"] > 0.6
    assert results["cost 20, fine alone"]["hits"] > 0.85
    looks_like_pictures(tmp_path, "interpolation", "sdedit", "inpainting", "editing", "multiscale")


@pytest.mark.example
def test_inverse_problems(digits_model, tmp_path):
    options = ("--count", 8, "--steps", 20)
    _, results = run("inverse_problems", tmp_path, "--model", digits_model, *options)
    gains = {
        problem: {name: value - row["baseline"] for name, value in row.items()}
        for problem, row in results.items()
    }
    least = {
        "inpainting": 3.0,
        "deblurring": 1.0,
        "2x super-resolution": 1.0,
        "4x super-resolution": 0.5,
    }
    for problem, gain in least.items():
        for method in ("ΠGDM", "MMPS"):
            assert gains[problem][method] > gain, (problem, method, gains)
    assert gains["inpainting"]["DPS"] > 3.0
    looks_like_pictures(tmp_path, "inpainting", "deblurring", "2x_super-resolution")


@pytest.mark.example
def test_distillation(digits_model, tmp_path):
    """Students of at most four steps reach nine tenths of their teacher's accuracy at fifty."""
    options = ("--judged", 100, "--stage-steps", 60)
    _, results = run("distillation", tmp_path, "--model", digits_model, *options)
    teacher = results["teacher, steps: 50"]["accuracy"]
    assert teacher > 0.9
    for steps in (1, 2, 4):
        assert results[f"progressive, steps: {steps}"]["accuracy"] > 0.9 * teacher
    for steps in (2, 4):
        assert results[f"consistency distillation, steps: {steps}"]["accuracy"] > 0.9 * teacher
    looks_like_pictures(tmp_path, "distillation")


@pytest.mark.example
def test_latent_diffusion(tmp_path):
    """Both stages run, and samples are of their class."""
    options = ("--autoencoder-steps", 200, "--diffusion-steps", 400, "--samples", 200)
    _, results = run("latent_diffusion", tmp_path, *options)
    assert results["PSNR of reconstructions"] > 15.0
    assert results["accuracy of samples"] > 0.8
    assert results["accuracy of real images"] > 0.85
    looks_like_pictures(tmp_path, "latent")


@pytest.mark.example
@pytest.mark.native
def test_demo(tmp_path):
    """Python and the native program draw the same images, of a model that has learnt a little."""
    options = ("--steps", 120, "--samples", 100, "--epochs", 1)
    printed, results = run("demo", tmp_path, *options)
    assert results["largest difference between Python's and native images"] < 1e-3
    assert results["native images judged"] == 100
    assert results["native images of the class asked for"] > 0.2
    assert results["Fréchet distance of native images"] > 0.0
    assert "native.png" in printed
    looks_like_pictures(tmp_path, "training", "python", "native", "strip")


@pytest.mark.example
def test_nothing_heavy_is_imported_with_the_library(tmp_path):
    printed, results = benchmark("import_time", tmp_path, "--rounds", 1)
    assert "goal" in printed
    library = results["diffusion_eqx"]
    assert library["packages besides those of jax and equinox"] == ["diffusion_eqx"]
    assert library["unwanted"] == []
    # Loading a model, too, needs none of them.
    assert results["… and dx.load_model"]["unwanted"] == []


@pytest.mark.example
@pytest.mark.peer
def test_sampling_can_be_compared_with_diffusers(tmp_path):
    """Both draw with one network of the same weights; how fast they are is seen by running it in full."""
    pytest.importorskip("torch")
    pytest.importorskip("diffusers")
    _, results = benchmark("sampling_vs_diffusers", tmp_path, "--smoke")
    assert 3.7e6 < results["setting"]["parameters"] < 3.9e6
    assert results["largest difference of the networks"] < 1e-4
    assert results["pipeline"]["ratio"] > 0.0
    assert results["overhead"].keys() == {"ddim", "unipc"}


@pytest.mark.example
def test_every_sampler_can_be_judged_on_digits(tmp_path):
    options = ("--training-steps", 60, "--count", 100, "--only", "ddim", "sde:Euler")
    _, results = benchmark("digits_samplers", tmp_path, *options)
    assert results["real, unseen by the judge"]["accuracy"] > 0.85
    assert len(results) == 1 + 2 * 3


@pytest.mark.example
def test_a_family_can_be_trained_and_judged(tmp_path):
    options = ("--effort", 0.02, "--count", 50, "--epochs", 2, "--only", "DiT")
    _, results = benchmark("families", tmp_path, *options)
    assert results["real test set"]["accuracy"] > 0.85
    assert results["DiT"]["distance"] > 0.0


@pytest.mark.example
def test_the_wait_for_a_first_loss_is_measured(tmp_path):
    """With a full cache of programs it is shorter; how long it is, is seen by running it in full."""
    network = {
        "kind": "dit",
        "in_channels": 1,
        "num_classes": 10,
        "hidden_size": 32,
        "depth": 2,
        "num_heads": 2,
    }
    path = tmp_path / "digits.yaml"
    path.write_text(json.dumps({"data": "digits", "model": {"backbone": network}}))
    printed, figures = benchmark("first_loss", tmp_path, "--rounds", 1, "--options", path)
    assert "goal: the first loss at most 10 s" in printed
    assert 0.0 < figures["median"] < figures["empty cache"]


@pytest.mark.example
def test_what_a_step_waits_for_its_data(tmp_path):
    options = ("--images", 60, "--batch", 8, "--steps", 5, "--channels", 8)
    printed, figures = benchmark("data_loading", tmp_path, *options)
    assert "goal for the host: at most 2% of a step" in printed
    decoding, host = figures["decoding"], figures["host"]
    assert decoding["batch read alone"] > 0.0
    assert decoding["longest wait"] >= decoding["wait for a batch read ahead"]
    spent = host["take a batch"] + host["put it on the devices"]
    assert host["share of a step"] == pytest.approx(spent / host["step"])


@pytest.mark.example
def test_choices_of_training_can_be_compared(tmp_path):
    _, results = benchmark("training_choices", tmp_path, "--smoke")
    (name,) = results.keys() - {"real, unseen by the judge"}
    assert name == "epsilon uniform uniform"
    assert results[name]["distance"] > 0.0


@pytest.mark.example
@pytest.mark.peer
def test_training_can_be_compared_with_diffusers(tmp_path):
    """Both train networks of the same size; how good and fast they are is seen by running it in full."""
    _, results = benchmark("training_vs_diffusers", tmp_path, "--smoke")
    assert {row["name"] for row in results["runs"]} == {"ours, float32", "diffusers, float32"}
    assert all(row["distance"] > 0.0 and row["images/s"] > 0.0 for row in results["runs"])
