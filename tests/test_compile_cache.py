"""What was compiled once is compiled no more, whatever has become of its file."""

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from diffusion_eqx.compile_cache import _trim, use_compile_cache

# Draws by a sampler, and says how many programs were found on disk, and how many were not.
PROGRAM = """
import collections, json
import jax, jax.numpy as jnp
import diffusion_eqx as dx

counts = collections.Counter()
jax.monitoring.register_event_listener(lambda name, **kwargs: counts.update([name.split("/")[-1]]))
folder = dx.use_compile_cache()
schedule = dx.schedules.DiscreteSchedule(dx.schedules.cosine_betas(100))
denoiser = dx.exact.GaussianDenoiser(jnp.zeros(2), jnp.ones(2), schedule)
sampler, key = dx.samplers.DDIMSampler(), jax.random.key(0)
images = dx.sample(denoiser, sampler, (2,), count=4, steps=4, key=key)
found = {name: counts[name] for name in ("cache_hits", "cache_misses")}
print(json.dumps(found | {"folder": str(folder), "images": images.tolist()}))
"""


def run(home: Path) -> tuple[dict, str]:
    """What the program prints, and what it complains of."""
    settings = {k: v for k, v in os.environ.items() if not k.startswith(("JAX_", "XLA_"))}
    environment = {**settings, "XDG_CACHE_HOME": str(home), "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-c", PROGRAM]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return json.loads(done.stdout), done.stderr


@pytest.mark.slow
def test_a_second_start_compiles_nothing_and_damaged_files_do_no_harm(tmp_path):
    first, _ = run(tmp_path)
    folder = Path(first["folder"])
    assert folder.parent == tmp_path / "diffusion_eqx"
    assert first["cache_misses"] > 10
    second, said = run(tmp_path)
    assert said == ""
    assert second == {**first, "cache_hits": first["cache_hits"] + first["cache_misses"]} | {
        "cache_misses": 0
    }
    kept = sorted(folder.iterdir(), key=lambda path: path.stat().st_size)
    assert len(kept) == first["cache_misses"]
    # The largest loses its second half, and one bit of each other.
    for path in kept[:-1]:
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    kept[-1].write_bytes(kept[-1].read_bytes()[: kept[-1].stat().st_size // 2])
    third, _ = run(tmp_path)
    assert third["images"] == first["images"]


def test_what_a_user_has_chosen_stays(monkeypatch, tmp_path):
    assert not jax.config.jax_enable_compilation_cache  # by conftest
    assert use_compile_cache(tmp_path) is None
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("limit", "left"), [(300, "abc"), (299, "bc"), (150, "c"), (0, "")])
def test_the_programs_least_recently_used_go_first(limit, left, tmp_path):
    for age, name in enumerate("cba"):
        (tmp_path / name).write_bytes(bytes(100))
        os.utime(tmp_path / name, (1e9 - age, 1e9 - age))
    _trim(tmp_path, limit)
    assert "".join(sorted(path.name for path in tmp_path.iterdir())) == left


def test_where_no_folder_can_be_made_nothing_is_kept(tmp_path):
    (tmp_path / "diffusion_eqx").write_text("a file")
    found, said = run(tmp_path)
    assert found["folder"] == "None"
    assert said == ""
    assert found["cache_hits"] == found["cache_misses"] == 0
