"""Functions that run once: what is slow about them is their compilation."""

from collections.abc import Callable
from typing import Any, TypeVar

import equinox as eqx
import jax
from jax.core import Tracer

_Result = TypeVar("_Result")

# Machine code made in haste: a network's first weights take 4 s in place of 20 s. It is an option of XLA's
# compiler for CPUs.
_IN_HASTE = {"xla_backend_optimization_level": 0}


def run_once(function: Callable[..., _Result], *args: Any, **kwargs: Any) -> _Result:
    """`function(*args, **kwargs)`, compiled as one program in little time; it may be slow when it runs.

    Operation by operation, a function that makes many arrays compiles a program for each of their shapes.
    Where a caller traces the arguments already, the function is a part of the caller's program.
    """
    leaves = jax.tree.leaves((args, kwargs))
    if any(isinstance(leaf, Tracer) for leaf in leaves):
        return function(*args, **kwargs)
    options = _IN_HASTE if jax.default_backend() == "cpu" else {}
    compiled = eqx.filter_jit(function, compiler_options=options)  # pyright: ignore[reportCallIssue]
    return compiled(*args, **kwargs)
