import json
import struct
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors
from diffusion_eqx_export import ArtifactError, NotExportable, export_sampler, read_artifact, verify
from diffusion_eqx_export.container import ALIGNMENT, write_container
from diffusion_eqx_export.lowering import lower

from diffusion_eqx.models import save_model
from tests.artifacts import small_artifact, small_saved_model


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


def test_weights_are_stored_once_and_unchanged():
    artifact = read_artifact(small_artifact())
    backbone = small_saved_model().model.denoiser.backbone
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
    assert set(manifest["parameters"]) == {"steps", "guidance_scale", "eta", "temperature"}
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
        assert {a["role"] for a in entry["init"]["inputs"]} <= {"seed", "first", "weight"}


def test_an_unguided_export_has_no_scale(tmp_path):
    path = tmp_path / "a.safetensors"
    export_sampler(
        small_saved_model(), path, guidance_scale=None, batch_sizes=(1,), platforms=("cpu",)
    )
    assert "guidance_scale" not in read_artifact(path).manifest["parameters"]
    assert verify(read_artifact(path)).passed


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"platforms": ("cpu", "abacus")}, "abacus"),
        ({"platforms": ()}, "platforms must be"),
        ({"batch_sizes": (0,)}, "batch_sizes must be"),
        ({"steps": 0}, "steps must be between 1 and 1000"),
        ({"eta": 1.5}, "eta must be between"),
    ],
)
def test_wrong_wishes_are_refused_and_leave_no_file(wrong, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        export_sampler(small_saved_model(), tmp_path / "a", **wrong)
    assert not list(tmp_path.iterdir())


def test_callbacks_into_python_are_refused():
    def function(x):
        result = jax.ShapeDtypeStruct(x.shape, x.dtype)
        return [jax.pure_callback(np.sin, result, x)]

    def needs_lapack(x):
        return [jnp.linalg.svd(x, compute_uv=False)]

    x = jax.ShapeDtypeStruct((3, 3), jnp.float32)
    with pytest.raises((NotExportable, NotImplementedError)):
        lower(function, [x], donated=[], platform="cpu")
    with pytest.raises(NotExportable, match="lapack"):
        lower(needs_lapack, [x], donated=[], platform="cpu")


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
    save_model(model, small_saved_model().model)

    def command(*arguments: object) -> subprocess.CompletedProcess:
        line = [str(Path(sys.executable).parent / "diffusion-eqx-export"), *map(str, arguments)]
        return subprocess.run(line, capture_output=True, text=True, check=False)

    made = command("sampler", model, "-o", artifact, "--batch-sizes", 2, "--platforms", "cpu")
    assert made.returncode == 0, made.stderr
    assert "guidance_scale" in command("info", artifact).stdout
    assert json.loads(command("info", "--json", artifact).stdout)["name"] == "small"
    assert "passed" in command("verify", artifact).stdout
    failed = command("verify", model)
    assert (failed.returncode, "no artifact" in failed.stderr) == (2, True)
