"""An artifact does not depend on the settings of JAX where it is made, and its random bits are fixed."""

import hashlib
import os
import subprocess
import sys

import jax
import numpy as np
import pytest
from diffusion_eqx_export import pinned, read_artifact, seed_key, seed_words, to_32_bits, wrap_keys

from diffusion_eqx.models import save_model
from tests.artifacts import small_artifact, tiny_model
from tests.programs import run_program

# Many programs are compiled here.
pytestmark = pytest.mark.long

ENVIRONMENTS = [
    {"JAX_DEFAULT_PRNG_IMPL": "philox4x32"},
    {"JAX_DEFAULT_PRNG_IMPL": "rbg"},
    {"JAX_THREEFRY_PARTITIONABLE": "0"},
    {"JAX_ENABLE_X64": "1"},
    {"JAX_RANDOM_SEED_OFFSET": "5"},
    {"JAX_DISABLE_JIT": "1"},
]


def command(environment: dict[str, str], *arguments: object) -> subprocess.CompletedProcess:
    line = [sys.executable, "-m", "diffusion_eqx_export.cli", *map(str, arguments)]
    environment = {**os.environ, **environment}
    return subprocess.run(line, capture_output=True, text=True, check=False, env=environment)


@pytest.fixture(scope="module")
def model_and_digest(tmp_path_factory):
    """A model file, and the digest of its artifact made under the usual settings."""
    folder = tmp_path_factory.mktemp("usual")
    save_model(folder / "m.safetensors", tiny_model())
    return folder / "m.safetensors", exported(folder / "m.safetensors", folder / "a", {})


def exported(model, path, environment) -> str:
    done = command(
        *(environment, "sampler", model, "-o", path, "--steps", 4),
        *("--platforms", "cpu", "--batch-sizes", 2),
    )
    assert done.returncode == 0, done.stderr
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.slow
@pytest.mark.parametrize("environment", ENVIRONMENTS, ids=lambda e: "=".join(next(iter(e.items()))))
def test_the_environment_changes_no_byte(environment, model_and_digest, tmp_path):
    model, digest = model_and_digest
    path = tmp_path / "a.safetensors"
    assert exported(model, path, environment) == digest
    verified = command(environment, "verify", path)
    assert verified.returncode == 0, verified.stdout + verified.stderr
    assert "noise differs by 0.0e+00" in verified.stdout


def test_a_platform_that_is_not_there_is_one_line(model_and_digest, tmp_path):
    model, _ = model_and_digest
    done = command({"JAX_PLATFORMS": "abacus"}, "sampler", model, "-o", tmp_path / "a")
    assert done.returncode == 2
    assert "JAX has no CPU backend here" in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("generator", ["philox4x32", "rbg", "unsafe_rbg"])
def test_keys_are_threefrys_whatever_the_default(generator):
    with jax.default_prng_impl(generator), jax.threefry_partitionable(False):
        with pinned():
            keys = [jax.random.key(3), seed_key(3), wrap_keys(seed_words(3))]
            bits = [jax.random.bits(key, (4,)) for key in keys]
        assert str(jax.random.key_impl(seed_key(3))) == "threefry2x32"
    for found in bits:
        np.testing.assert_array_equal(found, bits_of(np.array([0, 3], np.uint32), 4))


def test_numbers_of_64_bits_are_narrowed():
    with jax.enable_x64(True):
        wide = {"a": jax.numpy.ones(3), "b": jax.numpy.arange(3), "c": 1.5}
        assert wide["a"].dtype == np.float64
        narrow = to_32_bits(wide)
    assert (narrow["a"].dtype, narrow["b"].dtype, narrow["c"]) == (np.float32, np.int32, 1.5)


ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))


def threefry(key: np.ndarray, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """threefry2x32 with 20 rounds, as FORMAT.md, section 4 writes it; words of uint32."""
    schedule = [key[0], key[1], key[0] ^ key[1] ^ np.uint32(0x1BD11BDA)]
    x, y = x + schedule[0], y + schedule[1]
    for group in range(5):
        for rotation in ROTATIONS[group % 2]:
            x = x + y
            y = (y << np.uint32(rotation)) | (y >> np.uint32(32 - rotation))
            y = y ^ x
        x = x + schedule[(group + 1) % 3]
        y = y + schedule[(group + 2) % 3] + np.uint32(group + 1)
    return x, y


def folded(key: np.ndarray, number: int) -> np.ndarray:
    zero = np.zeros(1, np.uint32)
    return np.concatenate(threefry(key, zero, zero + np.uint32(number)))


def bits_of(key: np.ndarray, count: int) -> np.ndarray:
    places = np.arange(count, dtype=np.uint32)
    x, y = threefry(key, np.zeros_like(places), places)
    return x ^ y


def test_bits_of_one_key_are_these():
    """The vectors of Random123's `kat_vectors`, and the bits that JAX has drawn since 2022."""
    ones = np.array([2**32 - 1], np.uint32)
    pi = [np.array([word], np.uint32) for word in (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344)]
    found = threefry(np.zeros(2, np.uint32), 0 * ones, 0 * ones)
    assert [int(word[0]) for word in found] == [0x6B200159, 0x99BA4EFE]
    found = threefry(np.concatenate([ones, ones]), ones, ones)
    assert [int(word[0]) for word in found] == [0x1CB996FC, 0xBB002BE7]
    found = threefry(np.concatenate(pi[2:]), *pi[:2])
    assert [int(word[0]) for word in found] == [0xC4923A9C, 0x483DF7A0]


def test_an_artifacts_keys_and_bits_are_those_of_the_format():
    """Program `init`, run as stored, against FORMAT.md, section 4 in numpy, and against constants."""
    artifact = read_artifact(small_artifact())
    words = np.array([0, 4_000_000_000], np.uint32)
    given = {"seed": words, "first": np.int32(5), "steps": np.int32(10)}
    state = run_program(artifact, "init", batch=4, given=given)
    expected = np.stack([folded(words, number) for number in (5, 6, 7, 8)])
    np.testing.assert_array_equal(state["keys"], expected)
    np.testing.assert_array_equal(expected[0], [3_685_963_482, 2_798_256_376])
    bits = bits_of(folded(expected[0], 0), 48)
    np.testing.assert_array_equal(bits[:3], [2_847_361_620, 1_900_546_438, 3_300_270_863])
    # The lowest bit is the sign of the noise.
    np.testing.assert_array_equal(np.signbit(state["x"][0].ravel()), bits & 1)
