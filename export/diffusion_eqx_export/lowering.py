"""From a traced function to a portable StableHLO program."""

import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.export
from jax.extend import core
from jaxlib.mlir import ir, passmanager
from jaxlib.mlir.dialects import sdy, stablehlo

from diffusion_eqx_export.errors import NotExportable
from diffusion_eqx_export.settings import pinned

# Of 2024-10-25. Plugins read programs that are up to five years old. Older versions lack operations
# that models use: batched gathers, attention in bfloat16, tan (FORMAT.md, section 2).
STABLEHLO_VERSION = "1.8.0"

# Platforms, in jax's spelling, that programs can be lowered for.
PLATFORMS = ("cpu", "cuda", "rocm", "tpu")

# Operations that move data between a running program and its host.
_HOST_TRANSFERS = {
    "stablehlo.infeed",
    "stablehlo.outfeed",
    "stablehlo.recv",
    "stablehlo.send",
}
_DIALECTS = {"builtin", "func", "stablehlo"}
_REMEDY = "sample without LAPACK routines, kernels of one vendor and transfers to the host"


class Lowered(NamedTuple):
    """A program, and which of the function's flat arguments it takes, in order."""

    bytecode: bytes
    kept: tuple[int, ...]
    outputs: tuple[jax.ShapeDtypeStruct, ...]


def lower(
    function: Callable[..., Sequence[jax.Array]],
    arguments: Sequence[jax.ShapeDtypeStruct],
    *,
    donated: Sequence[int] = (),
    platform: str,
) -> Lowered:
    """Lower `function`, from flat arrays to flat arrays, for one platform.

    Arguments that the function does not use are dropped. `donated` arguments give their memory to the
    outputs. Tracing happens inside `settings.pinned()`.

    **Raises:** `NotExportable` if the program calls back into Python or into a library, moves data from
    or to its host, has no lowering for the platform, or has an operation that is newer than
    `STABLEHLO_VERSION`. The message names the operation.
    """
    with pinned():
        jitted = jax.jit(function, donate_argnums=tuple(donated))
        traced = jitted.trace(*arguments)
        try:
            exported = jax.export.export(jitted, platforms=[platform])(*arguments)
        except (NotImplementedError, ValueError) as error:
            raise NotExportable(_why(traced.jaxpr.jaxpr, platform, error)) from error
    outputs = tuple(jax.ShapeDtypeStruct(a.shape, a.dtype) for a in exported.out_avals)
    return Lowered(portable(exported.mlir_module_serialized), exported.module_kept_var_idx, outputs)


def _why(jaxpr: core.Jaxpr, platform: str, error: Exception) -> str:
    """Why jax did not export a traced function. Of calls into Python its own error names none."""
    callbacks = sorted(set(_callbacks(jaxpr)))
    if not callbacks:
        return f"jax cannot lower the program for {platform}: {error}"
    remedy = "leave the call out"
    if any("equinox" in callback for callback in callbacks):
        remedy = "set EQX_ON_ERROR=off before Equinox is imported, which leaves out its checks"
    return (
        f"the program calls back into Python by {', '.join(callbacks)}, which a native plugin cannot "
        f"do; {remedy}"
    )


def _callbacks(jaxpr: core.Jaxpr) -> Iterator[str]:
    """The calls into Python of a traced function, each with what it calls where that is known."""
    for equation in jaxpr.eqns:
        name = equation.primitive.name
        if "callback" in name or name == "debug_print":
            yield f"{name}{_callee(equation.params)}"
        for value in jax.tree.leaves(equation.params, is_leaf=_is_jaxpr):
            if isinstance(value, core.ClosedJaxpr):
                yield from _callbacks(value.jaxpr)
            elif isinstance(value, core.Jaxpr):
                yield from _callbacks(value)


def _is_jaxpr(value: Any) -> bool:
    return isinstance(value, core.Jaxpr | core.ClosedJaxpr)


def _callee(parameters: dict[str, Any]) -> str:
    if "fmt" in parameters:
        return f"({parameters['fmt']!r})"
    callback = parameters.get("callback")
    function = getattr(callback, "callback_func", callback)
    name = getattr(function, "__qualname__", "")
    return f" of {function.__module__}.{name}" if name and "<locals>._flat" not in name else ""


def portable(bytecode: bytes) -> bytes:
    """A serialized module, of any version, as one of `STABLEHLO_VERSION` without debug locations.

    **Raises:** `NotExportable` naming the operations that no plugin need have, or that are newer.
    """
    context = ir.Context()
    sdy.register_dialect(context)  # jax marks some calls with its annotations of sharding
    module = stablehlo.deserialize_portable_artifact(context, bytecode)
    foreign = _foreign_operations(module)
    if foreign:
        raise NotExportable(
            f"the program needs {', '.join(foreign)}, which a native plugin does not have; {_REMEDY}"
        )
    # Locations would carry the paths of the exporting machine's sources into the file.
    with context:
        passmanager.PassManager.parse("builtin.module(strip-debuginfo)").run(module.operation)
    complaints: list[str] = []

    def note(diagnostic: ir.Diagnostic) -> bool:
        complaints.append(str(diagnostic))
        return True

    handler: Any = context.attach_diagnostic_handler(note)
    try:
        return stablehlo.serialize_portable_artifact(module, STABLEHLO_VERSION)
    except ValueError as error:
        raise NotExportable(_newer(complaints)) from error
    finally:
        handler.detach()


def _foreign_operations(module: ir.Module) -> list[str]:
    """The operations of a module that no plugin need have, by name."""
    found: set[str] = set()

    def visit(operation: ir.Operation) -> ir.WalkResult:
        name = operation.name
        if name == "stablehlo.custom_call":
            target = ir.StringAttr(operation.attributes["call_target_name"]).value
            found.add(f"{target} ({name})")
        elif name in _HOST_TRANSFERS or name.split(".")[0] not in _DIALECTS:
            found.add(name)
        return ir.WalkResult.ADVANCE

    module.operation.walk(visit)
    return sorted(found)


def _newer(complaints: list[str]) -> str:
    """What MLIR said when it could not write a module for `STABLEHLO_VERSION`."""
    text = " ".join(complaints)
    names = sorted(set(re.findall(r"legalize operation '(?:vhlo\.)?([\w.]+?)(?:_v\d+)?'", text)))
    return (
        f"the program has {', '.join(names) or 'an operation'}, in a form that StableHLO "
        f"{STABLEHLO_VERSION} does not have and older plugins would not read: {text[:300]}"
    )
