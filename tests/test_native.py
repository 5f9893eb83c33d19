"""The native program against Python, on two plugins, and against broken files."""

import hashlib
import json
import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from diffusion_eqx.samplers import draw, image_keys
from tests.artifacts import export_tiny, small_artifact, small_model, tiny_artifact
from tests.mutations import mutations

pytestmark = [pytest.mark.native, pytest.mark.long]

SAMPLER = Path(sys.executable).parent / "diffusion-sampler"
ASAN = Path(__file__).parents[1] / "cpp_runner" / "build" / "asan"
PLUGINS = ["lammps-jax-pjrt-cpu", "xla-cpu-pjrt"]
EXIT_CODES = {0, 3, 4, 5}


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def run(*arguments: object, program: Path = SAMPLER, code: int = 0) -> subprocess.CompletedProcess:
    line = [str(program), *map(str, arguments)]
    done = subprocess.run(line, capture_output=True, check=False, timeout=300)
    assert done.returncode == code, (line, done.returncode, done.stderr.decode())
    return done


def python_images(sampler: str, num_classes: int | None, count: int, seed: int, **options):
    images = small_model(num_classes).sample(
        count,
        sampler,
        steps=12,
        labels=None if num_classes is None else jnp.arange(count) % num_classes,
        guidance=None if num_classes is None else 3.0,
        key=jax.random.key(seed),
        **options,
    )
    return np.asarray(images)


@pytest.mark.parametrize("plugin", PLUGINS)
@pytest.mark.parametrize(
    ("sampler", "num_classes", "options"),
    [
        ("ddim", 4, {}),
        ("ddim", 4, {"eta": 0.8, "temperature": 0.7}),
        ("ddim", None, {}),
        ("ddpm", 4, {}),
    ],
)
def test_native_images_are_pythons(plugin, sampler, num_classes, options, tmp_path):
    out = tmp_path / "x.npy"
    seed = 4_000_000_000
    flags = [f for name, value in options.items() for f in (f"--{name}", value)]
    if num_classes is not None:
        flags += ["--guidance-scale", 3]
    run(
        *("sample", small_artifact(sampler, num_classes), "-o", out, "-n", 7, "--seed", seed),
        *("--steps", 12, "--plugin", plugin, *flags),
    )
    expected = python_images(sampler, num_classes, 7, seed, **options)
    np.testing.assert_allclose(np.load(out), expected, rtol=0, atol=5e-5)


@pytest.mark.parametrize("plugin", PLUGINS)
def test_verify_finds_the_noise_bit_equal(plugin):
    report = json.loads(run("verify", small_artifact(), "--plugin", plugin, "--json").stdout)
    assert report["passed"] is True
    assert report["noise"]["difference"] == 0.0
    assert report["image"]["difference"] <= 5e-5


def test_reference_noise_is_the_librarys_noise():
    from diffusion_eqx_export import read_artifact

    noise = draw(image_keys(jax.random.key(7), 2), 0, (8, 6, 1))
    np.testing.assert_allclose(
        read_artifact(small_artifact()).tensors["reference/noise"], noise, atol=1e-6
    )


def test_images_do_not_depend_on_batches(tmp_path):
    common = ["--seed", 1, "--steps", 5, "--label", 2]
    for name, flags in (
        ("a", ["-n", 5]),
        ("b", ["-n", 5, "--batch", 1]),
        ("c", ["-n", 2, "--first", 3]),
    ):
        run("sample", small_artifact(), "-o", tmp_path / f"{name}.npy", *common, *flags)
    whole, single, rest = (np.load(tmp_path / f"{n}.npy") for n in "abc")
    np.testing.assert_allclose(single, whole, atol=1e-5)
    np.testing.assert_allclose(rest, whole[3:], atol=1e-5)


def test_pictures_say_how_they_were_made(tmp_path):
    common = ["--seed", 9, "--steps", 4]
    run("sample", small_artifact(), "-o", tmp_path / "one.png", "--label", 2, *common)
    one = Image.open(tmp_path / "one.png")
    assert one.size == (6, 8)
    assert (one.info["seed"], one.info["steps"], one.info["label"]) == ("9", "4", "2")
    assert one.info["model"] == "small"
    run("sample", small_artifact(), "-o", tmp_path / "n.png", "-n", 3, *common)
    assert sorted(p.name for p in tmp_path.glob("n_*")) == [
        "n_0000.png",
        "n_0001.png",
        "n_0002.png",
    ]
    run("sample", small_artifact(), "-o", f"{tmp_path}/folder/", "-n", 2, *common)
    assert len(list((tmp_path / "folder").iterdir())) == 2
    run("sample", small_artifact(), "-o", tmp_path / "grid.png", "-n", 5, "--columns", 3, *common)
    assert Image.open(tmp_path / "grid.png").size == (3 * 8 + 2, 2 * 10 + 2)
    run("sample", small_artifact(), "-o", tmp_path / "strip.png", "-n", 2, "--strip", 2, *common)
    assert Image.open(tmp_path / "strip.png").size == (3 * 8 + 2, 2 * 10 + 2)
    piped = run("sample", small_artifact(), "-o", "-", "--format", "npy", *common).stdout
    assert piped.startswith(b"\x93NUMPY")


def test_report_for_machines(tmp_path):
    def sample() -> dict:
        done = run(
            *("sample", small_artifact(), "-o", tmp_path / "x.npy", "-n", 4, "--steps", 6, "--json")
        )
        return json.loads(done.stdout)

    first, second = sample(), sample()
    assert first["steps_run"] == 6
    assert first["parameters"]["steps"] == 6
    assert 0 <= first["seed"] < 2**32
    assert first["programs_from_cache"] == 0
    assert second["programs_from_cache"] == second["programs"] == 3
    assert second["milliseconds"]["compile"] < first["milliseconds"]["compile"]
    assert set(first["milliseconds"]) >= {"open", "plugin", "upload", "compile", "steps", "total"}
    info = json.loads(run("info", small_artifact(), "--json").stdout)
    assert info["shape"] == [8, 6, 1]
    devices = json.loads(run("devices", "--json").stdout)
    assert [d["platform"] for d in devices] == ["cpu", "cpu"]


def test_a_damaged_cache_entry_is_compiled_afresh(tmp_path):
    flags = ("sample", small_artifact(), "-o", tmp_path / "x.npy", "--seed", 1, "--steps", 3)
    run(*flags)
    expected = np.load(tmp_path / "x.npy")
    entries = list((tmp_path / "cache" / "diffusion-sampler").iterdir())
    assert len(entries) == 3
    for entry, damage in zip(
        entries, (b"", b"x" * 5000, entries[2].read_bytes()[:-9]), strict=True
    ):
        entry.write_bytes(damage)
    run(*flags)
    np.testing.assert_array_equal(np.load(tmp_path / "x.npy"), expected)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("sample", "{a}", "-o", "{t}/x.gif"), 2, "must end in"),
        (("sample", "{a}", "-o", "{t}/x.png", "--steps", 0), 2, "steps must be from 1 to 1000"),
        (("sample", "{a}", "-o", "{t}/x.png", "--set", "blur=1"), 2, "no parameter 'blur'"),
        (("sample", "{a}", "-o", "{t}/x.png", "--label", "cat"), 2, "no label 'cat'"),
        (("sample", "{a}", "-o", "{t}/x.png", "--batch", 3), 2, "batches of 3"),
        (("sample", "{a}", "-o", "-", "-n", 2), 2, "--columns"),
        (("sample", "{a}", "-o", "/proc/none/x.png"), 3, "/proc/none"),
        (("info", "{t}/none"), 3, "No such file"),
        (("info", "{t}"), 3, "not a regular file"),
        (("info", __file__), 4, "damaged or not an artifact"),
        (("verify", "{a}", "--plugin", "/none.so"), 6, "no plugin file"),
        (("verify", "{a}", "--plugin", "tpu"), 6, "pip install"),
        (("verify", "{a}", "--plugin", sys.executable + ".so"), 6, "no plugin file"),
        (("verify", "{a}", "--plugin", "{so}"), 6, "no PJRT plugin"),
        (("verify", "{a}", "--device", 7), 6, "no device 7"),
    ],
)
def test_errors_are_one_clear_line(arguments, code, message, tmp_path):
    library = next(Path("/usr/lib").rglob("libz.so*"), None) or next(Path("/lib").rglob("libz.so*"))
    names = {"{a}": str(small_artifact()), "{t}": str(tmp_path), "{so}": f"{tmp_path}/libz.so"}
    (tmp_path / "libz.so").symlink_to(library)
    line = []
    for argument in map(str, arguments):
        for name, value in names.items():
            argument = argument.replace(name, value)
        line.append(argument)
    done = run(*line, code=code)
    lines = done.stderr.decode().splitlines()
    assert len(lines) == 1, lines
    assert lines[0].startswith("diffusion-sampler: ")
    assert message in lines[0]
    assert json.loads(run(*line, "--json", code=code).stdout)["error"]["code"] == code


def test_an_artifact_without_this_platform_says_so(tmp_path):
    path = export_tiny(tmp_path / "cuda.safetensors", platforms=("cuda",))
    done = run("sample", path, "-o", tmp_path / "x.png", code=5)
    assert b"only for cuda" in done.stderr


def test_interrupt_stops_cleanly_and_leaves_no_file(tmp_path):
    out = tmp_path / "x.npy"
    command = [SAMPLER, "sample", small_artifact(), "-o", out, "-n", 400, "--steps", 1000]
    master, slave = pty.openpty()
    process = subprocess.Popen([str(c) for c in command], stderr=slave, stdout=subprocess.DEVNULL)
    os.close(slave)
    shown = b""
    deadline = time.time() + 120
    while b"steps" not in shown and time.time() < deadline:
        shown += os.read(master, 1000)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=60) == 130
    assert b"images/s" in shown
    shown += os.read(master, 100_000)
    assert b"interrupted" in shown
    assert [p.name for p in tmp_path.iterdir()] == ["cache"]


def test_a_reader_that_goes_away_is_an_error():
    line = f"{SAMPLER} sample {small_artifact()} -o - --steps 2 | true; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", line], capture_output=True, check=False)
    assert done.returncode in (0, 3)
    assert done.stderr.count(b"\n") <= 1


def test_the_binary_is_small_and_links_no_python():
    assert SAMPLER.stat().st_size < 2_000_000
    linked = subprocess.run(["ldd", SAMPLER], capture_output=True, text=True, check=True).stdout
    for forbidden in ("python", "protobuf", "tensorflow", "xla", "png", "stdc++"):
        assert forbidden not in linked


def sanitized(stderr: str) -> None:
    assert "Sanitizer" not in stderr, stderr[:3000]
    assert "runtime error" not in stderr, stderr[:3000]


@pytest.mark.slow
def test_broken_artifacts_are_refused_under_sanitizers(tmp_path):
    """Each gets a documented exit code and one line; accepted are those that changed nothing the reader
    relies on, or whose manifest lies so consistently that only the device can notice. The device must
    then report an error or a result, never crash.
    """
    original = tiny_artifact()
    broken = list(mutations(original))
    assert len(broken) >= 1000
    accepted = []
    for begin in range(0, len(broken), 250):
        part = broken[begin : begin + 250]
        files = [tmp_path / f"{number}.safetensors" for number in range(len(part))]
        for file, (_, data) in zip(files, part, strict=True):
            file.write_bytes(data)
        done = run(*files, program=ASAN / "check-artifacts")
        sanitized(done.stderr.decode())
        lines = done.stdout.decode(errors="replace").splitlines()
        assert len(lines) == len(part)
        for (name, data), line in zip(part, lines, strict=True):
            code, message = line.split("\t", 1)
            assert int(code) in EXIT_CODES, (name, line)
            assert (int(code) == 0) == (message == ""), (name, line)
            if int(code) == 0:
                assert harmless(original, data), name
                accepted.append((name, data))
    assert 5 < len(accepted) < 0.1 * len(broken)
    path = tmp_path / "accepted.safetensors"
    for name, data in accepted[:20]:
        path.write_bytes(data)
        line = [SAMPLER, "verify", path]
        code = subprocess.run(line, capture_output=True, check=False, timeout=120).returncode
        # 5: the mutation took away the program of this platform.
        assert code in {0, 4, 5, 7, 8}, (name, code)


def harmless(original: Path, data: bytes) -> bool:
    """Whether a mutation that was accepted kept the tensors, and a manifest of its own digest."""
    start = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:start])
    manifest = header["__metadata__"]["manifest"]
    whole = original.read_bytes()
    data_start = 8 + int.from_bytes(whole[:8], "little")
    digest = hashlib.sha256(manifest.encode()).hexdigest()
    return (
        header["__metadata__"]["manifest_sha256"] == digest and data[start:] == whole[data_start:]
    )


@pytest.mark.slow
def test_sampling_is_clean_under_sanitizers(tmp_path):
    environment = os.environ | {"ASAN_OPTIONS": "detect_leaks=0", "VIRTUAL_ENV": sys.prefix}
    done = subprocess.run(
        [
            ASAN / "diffusion-sampler",
            "sample",
            small_artifact(),
            "-o",
            tmp_path / "x.png",
            "-n",
            "5",
        ],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )
    sanitized(done.stderr)
    assert done.returncode == 0, done.stderr
