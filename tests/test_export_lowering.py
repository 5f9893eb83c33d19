"""What a program may hold: operations old enough for every plugin, and nothing that only Python has."""

import jax
import jax.numpy as jnp
import pytest
from diffusion_eqx_export import (
    STABLEHLO_VERSION,
    NoCPUBackend,
    NotExportable,
    lower,
    portable,
    read_artifact,
    verify,
)
from jax.experimental import io_callback
from jax.interpreters import mlir
from jaxlib.mlir import ir
from jaxlib.mlir.dialects import stablehlo

from tests.artifacts import export_tiny, tiny_artifact

# Many programs are compiled here.
pytestmark = pytest.mark.long

SQUARE = jax.ShapeDtypeStruct((4, 4), jnp.float32)
HALF = jax.ShapeDtypeStruct((1, 4, 2, 8), jnp.bfloat16)


def lowered(function, *specs, platform="cpu"):
    arguments = specs or (SQUARE,)
    return lower(lambda *a: [function(*a)], arguments, donated=[], platform=platform).bytecode


def python_function(x):
    return x


def gathered_rows(x):
    """A gather with a batch axis."""
    indices = jnp.argsort(x, axis=1)
    return jnp.take_along_axis(x, indices, axis=1)


def scattered_rows(x):
    return jax.vmap(lambda row, i: row.at[i].add(1.0))(x, jnp.arange(4, dtype=jnp.int32))


def preset(x):
    return jax.lax.dot(x, x, precision=jax.lax.DotAlgorithmPreset.BF16_BF16_F32_X3)


@pytest.mark.parametrize("platform", ["cpu", "cuda", "rocm", "tpu"])
@pytest.mark.parametrize("function", [jnp.tan, gathered_rows, scattered_rows, preset])
def test_operations_younger_than_stablehlo_1_0_are_exported(function, platform):
    lowered(function, platform=platform)


def test_attention_in_bfloat16_is_exported():
    with jax.numpy_dtype_promotion("standard"):  # jax's own attention mixes types.
        lowered(lambda q: jax.nn.dot_product_attention(q, q, q), HALF)


def test_programs_are_of_the_version_that_the_manifest_names():
    artifact = read_artifact(tiny_artifact())
    assert artifact.manifest["producer"]["stablehlo"] == STABLEHLO_VERSION == "1.8.0"
    programs = [t for name, t in artifact.tensors.items() if name.startswith("programs/")]
    assert programs
    for program in programs:
        assert f"StableHLO_v{STABLEHLO_VERSION}".encode() in program.tobytes()


@pytest.mark.parametrize("platform", ["cpu", "cuda"])
@pytest.mark.parametrize(
    ("function", "named"),
    [
        (lambda x: jax.pure_callback(python_function, x, x), "pure_callback of .*python_function"),
        (lambda x: io_callback(python_function, x, x, ordered=True), "io_callback of .*python_fun"),
        (lambda x: (jax.debug.print("x is {}", x), x)[1], "debug_print.*x is"),
        (
            lambda x: jax.lax.fori_loop(
                0, 3, lambda _, x: (jax.debug.callback(python_function, x), x)[1], x
            ),
            "debug_callback",
        ),
        (lambda x: jax.lax.cond(x[0, 0] > 0, lambda: jnp.linalg.cholesky(x), lambda: x), "potrf"),
        (lambda x: jnp.linalg.solve(x, x), "getrf"),
        (lambda x: jax.lax.exp(x, accuracy=jax.lax.Tolerance(1e-3, 1e-2, 3)), "exponential"),
    ],
    ids=["pure", "io", "print", "debug in a loop", "cholesky in a branch", "solve", "accuracy"],
)
def test_what_no_plugin_can_run_is_refused_by_name(function, named, platform):
    with pytest.raises(NotExportable, match=named):
        lowered(function, platform=platform)


TRANSFERS = [
    '%r = "stablehlo.outfeed"(%x, %t) {outfeed_config = ""}'
    " : (tensor<4xf32>, !stablehlo.token) -> !stablehlo.token",
    '%r:2 = "stablehlo.infeed"(%t) {infeed_config = ""}'
    " : (!stablehlo.token) -> (tensor<4xf32>, !stablehlo.token)",
    '%r = "stablehlo.send"(%x, %t) {channel_handle = #stablehlo.channel_handle<handle = 1, type = 2>,'
    " is_host_transfer = true} : (tensor<4xf32>, !stablehlo.token) -> !stablehlo.token",
    '%r:2 = "stablehlo.recv"(%t) {channel_handle = #stablehlo.channel_handle<handle = 1, type = 3>,'
    " is_host_transfer = true} : (!stablehlo.token) -> (tensor<4xf32>, !stablehlo.token)",
    '%r = "stablehlo.custom_call"(%x) {call_target_name = "a kernel"}'
    " : (tensor<4xf32>) -> tensor<4xf32>",
]


@pytest.mark.parametrize("statement", TRANSFERS, ids=lambda text: text.split('"')[1])
def test_transfers_to_the_host_are_refused_by_name(statement):
    """Found by walking the operations: the target of a call need not even be a word."""
    with pytest.raises(NotExportable, match=statement.split('"')[1]):
        portable(
            serialized(f"""
            func.func @main(%x: tensor<4xf32>) -> tensor<4xf32> {{
              %t = stablehlo.create_token : !stablehlo.token
              {statement}
              return %x : tensor<4xf32>
            }}""")
        )


def serialized(text: str) -> bytes:
    with mlir.make_ir_context():
        return stablehlo.serialize_portable_artifact(ir.Module.parse(text), STABLEHLO_VERSION)


def test_words_in_a_text_are_no_operation():
    """A search of the module's text took this name for a call."""
    assert portable(
        serialized("""
        func.func @main(%x: tensor<4xf32>) -> tensor<4xf32> {
          %y = func.call @"stablehlo.custom_call @lapack"(%x) : (tensor<4xf32>) -> tensor<4xf32>
          return %y : tensor<4xf32>
        }
        func.func private @"stablehlo.custom_call @lapack"(%x: tensor<4xf32>) -> tensor<4xf32> {
          return %x : tensor<4xf32>
        }""")
    )


def test_a_machine_without_a_cpu_backend_is_told_so(tmp_path, monkeypatch):
    artifact = read_artifact(tiny_artifact())

    def no_cpu(*, backend):
        raise RuntimeError(f"Unknown backend {backend}")

    monkeypatch.setattr(jax, "local_devices", no_cpu)
    with pytest.raises(NoCPUBackend, match="JAX_PLATFORMS"):
        export_tiny(tmp_path / "a.safetensors")
    assert issubclass(NoCPUBackend, NotExportable)
    with pytest.raises(NoCPUBackend, match="JAX_PLATFORMS"):
        verify(artifact)
    assert not list(tmp_path.iterdir())
