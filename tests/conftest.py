"""Shared fixtures, and what holds for every test.

- Every array that crosses a function of the library is checked against its annotation.
- Dtypes are promoted only where a line asks for it, ranks never. Warnings are errors (pyproject.toml).
"""

import gc
import importlib.metadata
import os

os.environ.setdefault("EQX_ON_ERROR", "off")
# Tracing makes many objects that live on; looking for cycles among them is a fifteenth of all the time.
gc.set_threshold(100_000, 20, 20)
# Compiling is most of what the tests do, and each program runs once or twice on small arrays: machine code
# is made in haste here, in half the time. XLA reads this when jax looks for its devices, below. Programs
# that tests start as a user would do not inherit it, nor does tests/test_elsewhere.py, which compares both.
_HASTE = "--xla_backend_optimization_level=0"
if importlib.metadata.version("jaxlib").startswith("0.10."):
    # Later releases have no other emitters, and end the process for a flag that they do not know.
    _HASTE += " --xla_cpu_use_fusion_emitters=false"
_flags = os.environ.get("XLA_FLAGS", "")
os.environ["XLA_FLAGS"] = f"{_flags} {_HASTE}".strip()

from jaxtyping import install_import_hook

import tests.checking  # noqa: F401 - the hook finds it by its name

# Must come before the first import of the library.
install_import_hook("diffusion_eqx", "tests.checking.typechecked").__enter__()

import itertools
from pathlib import Path

import jax
import pytest

jax.devices()
os.environ["XLA_FLAGS"] = _flags
# jax has read its settings: what follows is for the programs that tests start. They share what they
# compile, as a user's second command does; tests themselves compile in this process, and keep nothing.
jax.config.update("jax_enable_compilation_cache", False)
os.environ["JAX_COMPILATION_CACHE_DIR"] = str(Path(__file__).parents[1] / ".pytest_cache/programs")
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")

from diffusion_eqx.config import DDIMConfig, NoiseScheduleConfig, UNetBackboneConfig


@pytest.fixture
def getkey():
    """A source of fresh random keys, the same in each run."""
    numbers = itertools.count()
    return lambda: jax.random.fold_in(jax.random.key(1234), next(numbers))


@pytest.fixture
def small_config():
    """A class-conditional model of 8x8 images that compiles in seconds."""
    return DDIMConfig(
        name="small",
        backbone=UNetBackboneConfig(
            hidden_dims=(8, 16), attention_resolutions=(4,), time_embedding_dim=16, num_classes=10
        ),
        noise_schedule=NoiseScheduleConfig(schedule_type="cosine"),
        input_shape=(8, 8, 1),
        prediction_type="v_prediction",
        num_inference_steps=10,
    )


@pytest.fixture(autouse=True, scope="module")
def _programs_of_one_module():
    """Compiled programs go when their module's tests have run.

    Each program holds a few memory mappings, and a process that wants more than 65,530 dies on Linux
    without a word. A worker that ran the long tests came to that after half an hour.
    """
    yield
    jax.clear_caches()
