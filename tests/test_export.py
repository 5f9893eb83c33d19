import json
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import safetensors
from diffusion_eqx_export import ALIGNMENT, ArtifactError, read_artifact, verify, write_container

from diffusion_eqx.guidance import ClassifierFreeGuidance
from diffusion_eqx.models import Record, save_model
from diffusion_eqx.samplers import DDIMSampler, numbers
from tests.artifacts import export_tiny, small_artifact, small_model, tiny_model

# Many programs are compiled here.
pytestmark = pytest.mark.long


def header_of(path: Path) -> tuple[dict, int]:
    raw = path.read_bytes()
    (length,) = struct.unpack("<Q", raw[:8])
    return json.loads(raw[8 : 8 + length]), 8 + length


@pytest.mark.parametrize("sampler", ["ddim", "ddpm"])
@pytest.mark.parametrize("num_classes", [4, None])
def test_exported_programs_draw_what_python_draws(sampler, num_classes):
    verdict = verify(read_artifact(small_artifact(sampler, num_classes)))
    assert verdict.passed, verdict
    assert verdict.noise == 0.0


def test_verify_notices_wrong_weights():
    artifact = read_artifact(small_artifact())
    name = "weights/backbone.conv_out.weight"
    wrong = artifact.tensors | {name: artifact.tensors[name] + 0.01}
    assert not verify(artifact._replace(tensors=wrong)).passed


def test_container_is_aligned_and_read_by_the_safetensors_library():
    path = small_artifact()
    header, data_start = header_of(path)
    assert data_start % ALIGNMENT == 0
    with safetensors.safe_open(path, "numpy") as file:
        assert set(file.keys()) == header.keys() - {"__metadata__"}
    end = 0
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        begin, following = entry["data_offsets"]
        assert begin == end
        end = following
        if not name.startswith("padding."):
            assert (data_start + begin) % ALIGNMENT == 0
    assert data_start + end == path.stat().st_size


def test_a_header_longer_than_the_format_allows_is_refused(tmp_path):
    with pytest.raises(ValueError, match="at most 16777216"):
        write_container(tmp_path / "long", {}, {"manifest": "x" * (1 << 24)})
    assert list(tmp_path.iterdir()) == []


def test_weights_are_stored_once_and_unchanged():
    artifact = read_artifact(small_artifact())
    backbone = small_model().denoiser.backbone
    np.testing.assert_array_equal(
        artifact.tensors["weights/backbone.conv_in.weight"], backbone.conv_in.weight
    )
    largest = max(t.nbytes for n, t in artifact.tensors.items() if n.startswith("programs/"))
    assert largest < 120_000


def test_nothing_of_the_exporting_machine_is_in_the_file():
    raw = small_artifact().read_bytes()
    here = Path(__file__).parent.parent
    for secret in (str(here), str(Path.home()), sys.prefix, "site-packages", ".py"):
        assert secret.encode() not in raw, secret


def test_manifest_says_what_the_format_promises():
    manifest = read_artifact(small_artifact()).manifest
    assert set(manifest["parameters"]) == {
        *("steps", "eta", "temperature", "guidance_scale", "rescale")
    }
    assert manifest["labels"] == {"count": 4, "null": 4, "names": ["0", "1", "2", "3"]}
    assert manifest["model"]["ema"] is True
    assert {(e["platform"], e["batch"]) for e in manifest["programs"]} == {
        (platform, batch) for platform in ("cpu", "cuda") for batch in (1, 4)
    }
    for entry in manifest["programs"]:
        states = [a for a in entry["step"]["inputs"] if a["role"] == "state"]
        assert all(a["donated"] for a in states)
        assert [a["name"] for a in states] == ["x", "keys"]
        assert not any(a["donated"] for a in entry["finish"]["inputs"])
        own = [a for a in entry["init"]["inputs"] if a["role"] != "weight"]
        assert {a["name"] for a in own} <= {"seed", "first", "steps"}


def test_numbers_are_those_that_the_values_declare():
    described = read_artifact(small_artifact()).manifest["parameters"]
    for value in (DDIMSampler(), ClassifierFreeGuidance()):
        for name, number in numbers(value).items():
            assert described[name] == {
                "dtype": "F32",
                "default": number.default,
                "min": number.minimum,
                "max": number.maximum,
                "about": number.about,
            }
    assert {n: described["steps"][n] for n in ("default", "min", "max")} == {
        "default": 10,
        "min": 1,
        "max": 1000,
    }


def test_what_the_file_of_a_model_records_is_in_the_manifest(tmp_path):
    record = Record("DDIMModel", ema=True, training={"class_names": ["a", "b", "c", "d"]})
    manifest = read_artifact(export_tiny(tmp_path / "a", record=record)).manifest
    assert (manifest["model"]["ema"], manifest["labels"]["names"]) == (True, list("abcd"))
    manifest = read_artifact(export_tiny(tmp_path / "b")).manifest
    assert (manifest["model"]["ema"], manifest["model"]["training"]) == (False, {})


def test_an_unguided_export_has_no_scale_and_costs_half(tmp_path):
    plain = read_artifact(export_tiny(tmp_path / "a.safetensors"))
    assert "guidance_scale" not in plain.manifest["parameters"]
    assert verify(plain).passed


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"platforms": ("cpu", "abacus")}, "abacus"),
        ({"platforms": ()}, "platforms must be"),
        ({"batch_sizes": (0,)}, "batch_sizes must be"),
        ({"steps": 0}, "steps must be"),
        ({"steps": 1001}, "steps must be between 1 and the 1000"),
        ({"eta": 1.5}, "eta must be between"),
        ({"foo": 1}, "no option 'foo'.*DDIMSampler.*eta, temperature"),
        ({"guidance_scale": 3.0}, "no option 'guidance_scale'"),
        ({"sampler": "ddmi"}, "unknown sampler 'ddmi'.*ddim"),
        ({"guidance": "gfc"}, "unknown guidance 'gfc'.*cfg"),
        ({"grid": "even"}, "unknown grid 'even'.*karras"),
    ],
)
def test_wrong_wishes_are_refused_and_leave_no_file(wrong, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        export_tiny(tmp_path / "a", **{"sampler": "ddim", **wrong})
    assert not list(tmp_path.iterdir())


def test_damage_is_noticed(tmp_path):
    path = small_artifact()
    raw, (_, data_start) = bytearray(path.read_bytes()), header_of(path)
    broken = tmp_path / "a.safetensors"
    broken.write_bytes(raw[:-10])
    with pytest.raises(ArtifactError, match="damaged"):
        read_artifact(broken)
    raw[data_start + 100] ^= 1
    broken.write_bytes(raw)
    with pytest.raises(ArtifactError, match="does not have the digest"):
        read_artifact(broken)
    with pytest.raises(FileNotFoundError, match="no artifact"):
        read_artifact(tmp_path / "none")
    write_container(broken, {"a": np.zeros(3, np.float32)}, {"format": "other"})
    with pytest.raises(ArtifactError, match="other"):
        read_artifact(broken)


def test_command_line_exports_shows_and_verifies(tmp_path):
    model, artifact = tmp_path / "m.safetensors", tmp_path / "a.safetensors"
    save_model(model, tiny_model(), record={"ema": True, "training": {}})

    def command(*arguments: object) -> subprocess.CompletedProcess:
        line = [str(Path(sys.executable).parent / "diffusion-eqx-export"), *map(str, arguments)]
        return subprocess.run(line, capture_output=True, text=True, check=False)

    made = command(
        *("sampler", model, "-o", artifact, "--batch-sizes", 2, "--platforms", "cpu"),
        *("--guidance-scale", 3, "--eta=0.5", "--grid", "karras", "--steps", 5),
    )
    assert made.returncode == 0, made.stderr
    assert "guidance_scale" in command("info", artifact).stdout
    manifest = json.loads(command("info", "--json", artifact).stdout)
    assert manifest["name"] == "tiny"
    assert manifest["model"]["ema"] is True
    assert manifest["parameters"]["guidance_scale"]["default"] == 3.0
    assert manifest["parameters"]["eta"]["default"] == 0.5
    assert "passed" in command("verify", artifact).stdout
    failed = command("verify", model)
    assert (failed.returncode, "no artifact" in failed.stderr) == (2, True)
    for wrong, message in (
        (("--foo", 1), "no option 'foo'"),
        (("--eta", "much"), "needs a number; got 'much'"),
        (("--eta",), "--eta is no option here, or lacks its value"),
    ):
        failed = command("sampler", model, "-o", artifact, *wrong)
        assert (failed.returncode, message in failed.stderr) == (2, True), failed.stderr
