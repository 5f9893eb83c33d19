"""From a traced function to a portable StableHLO program."""

import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.export
from jaxlib.mlir import ir, passmanager
from jaxlib.mlir.dialects import sdy, stablehlo

# Old enough for plugins a year or two behind; see FORMAT.md, section 2.
STABLEHLO_VERSION = "1.0.0"

# Platforms, in jax's spelling, that programs can be lowered for.
PLATFORMS = ("cpu", "cuda", "rocm", "tpu")


class Lowered(NamedTuple):
    """A program, and which of the function's flat arguments it takes, in order."""

    bytecode: bytes
    kept: tuple[int, ...]
    outputs: tuple[jax.ShapeDtypeStruct, ...]


class NotExportable(ValueError):
    """The function needs something that a native plugin does not have."""


def lower(
    function: Callable[..., Sequence[jax.Array]],
    arguments: Sequence[jax.ShapeDtypeStruct],
    *,
    donated: Sequence[int],
    platform: str,
) -> Lowered:
    """Lower `function`, from flat arrays to flat arrays, for one platform.

    Arguments that the function does not use are dropped. `donated` arguments give their memory to the
    outputs.

    **Raises:** `NotExportable` if the program calls back into Python or into a library.
    """
    jitted = jax.jit(function, donate_argnums=tuple(donated))
    exported = jax.export.export(jitted, platforms=[platform])(*arguments)
    outputs = tuple(jax.ShapeDtypeStruct(a.shape, a.dtype) for a in exported.out_avals)
    return Lowered(
        _portable(exported.mlir_module_serialized), exported.module_kept_var_idx, outputs
    )


def _portable(bytecode: bytes) -> bytes:
    context = ir.Context()
    sdy.register_dialect(context)  # jax marks some calls with its annotations of sharding
    module = stablehlo.deserialize_portable_artifact(context, bytecode)
    calls = sorted(set(re.findall(r"stablehlo\.custom_call @(\w+)", str(module))))
    if calls:
        raise NotExportable(
            f"the program needs {', '.join(calls)}, which only Python's jax provides; sample without "
            "host callbacks and without LAPACK routines"
        )
    # Locations would carry the paths of the exporting machine's sources into the file.
    with context:
        passmanager.PassManager.parse("builtin.module(strip-debuginfo)").run(module.operation)
    return stablehlo.serialize_portable_artifact(module, STABLEHLO_VERSION)
