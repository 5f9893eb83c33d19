"""The laws of a network that is to be a backbone."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from diffusion_eqx._typing import Batch, Cond
from diffusion_eqx.denoiser import Backbone
from diffusion_eqx.precision import at_edge, cast
from diffusion_eqx.testing.law import broken_by, demand


def check_backbone(
    backbone: Backbone, shape: tuple[int, ...], *, cond: Cond = None, half: bool = True
) -> None:
    """Check the laws that denoising, training and export rely on in a network.

    - `shape`: of one example, without the batch.
    - `cond`: a condition for two examples, if the network takes one.
    - `half`: whether it must also run in bfloat16.

    The laws:

    - `backbone(x, c_noise, cond, key=key)` gives a finite batch of the dtype of `x` and the shape
      of `x`, or of twice its channels where the variance is learnt.
    - Each example depends on itself alone: not on its batch, nor on the level or condition of others.
    - `key=None` is the network without chance: twice the same.
    - It compiles, and `vmap` over several batches gives what each batch gives.
    - The gradient of its output is finite for every weight, and not 0 for all.
    - Cast to bfloat16 it runs in bfloat16, and its output is within a tenth of what it was.

    One CPU device cannot show speed, memory, or how bfloat16 rounds in the matrix units of other devices.

    **Raises:** `LawBroken`, which names the law, what was found and what is owed.
    """
    backbone = eqx.nn.inference_mode(backbone)
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.standard_normal((2, *shape)), float)
    c_noise = jnp.asarray([3.0, 700.0], float)
    try:
        output = _call(backbone, x, c_noise, cond)
    except Exception as error:
        broken_by(
            "a backbone is called as (x, c_noise, cond, *, key)", error, "a batch and no error"
        )
    double = (2, *shape[:-1], 2 * shape[-1])
    demand(
        "the output has the shape of the input, or twice its channels",
        output.shape in (x.shape, double),
        output.shape,
        f"{x.shape} or {double}",
    )
    demand(
        "the output has the dtype of the input", output.dtype == x.dtype, output.dtype, str(x.dtype)
    )
    finite = bool(jnp.isfinite(output).all())
    demand("the output is finite", finite, "NaN or infinity", "finite numbers")
    off = _distance(output, _call(backbone, x, c_noise, cond))
    demand("without a key there is no chance", off == 0.0, off, "the same output twice")
    _apart(backbone, x, c_noise, cond, output)
    _mapped(backbone, x, c_noise, cond, output)
    _gradient(backbone, x, c_noise, cond)
    if half:
        _half(backbone, x, c_noise, cond, output)


@eqx.filter_jit
def _call(backbone: Any, x: Batch, c_noise: Array, cond: Cond) -> Array:
    return backbone(x, c_noise, cond, key=None)


def _distance(a: Array, b: Array) -> float:
    """The greatest difference, relative to the size of `a`."""
    first, second = np.asarray(a, np.float64), np.asarray(b, np.float64)
    return float(np.abs(first - second).max() / max(np.sqrt(np.mean(first**2)), 1e-3))


def _apart(backbone: Any, x: Batch, c_noise: Array, cond: Cond, output: Array) -> None:
    other = [jnp.stack([x[0], -x[1]]), jnp.stack([c_noise[0], 0.5 * c_noise[1]])]
    cases = {
        "the example beside it": (other[0], c_noise, cond),
        "the level of another": (x, other[1], cond),
    }
    if cond is not None:
        cases["the condition of another"] = (
            x,
            c_noise,
            jax.tree.map(lambda c: c[jnp.array([0, 0])], cond),
        )
    for what, (x_other, c_other, cond_other) in cases.items():
        found = _call(backbone, x_other, c_other, cond_other)
        off = _distance(output[0], found[0])
        demand(f"an example does not depend on {what}", off <= 1e-4, off, "equal within 1e-4")
    swapped = jax.tree.map(lambda a: a[::-1], (x, c_noise, cond))
    off = _distance(output, _call(backbone, *swapped)[::-1])
    demand(
        "an example does not depend on its place in the batch",
        off <= 1e-4,
        off,
        "equal within 1e-4",
    )


def _mapped(backbone: Any, x: Batch, c_noise: Array, cond: Cond, output: Array) -> None:
    law = "vmap over batches gives what each batch gives"

    @eqx.filter_jit
    def several(backbone: Any, x: Array) -> Array:
        return jax.vmap(lambda x: backbone(x, c_noise, cond, key=None))(x)

    try:
        found = several(backbone, jnp.stack([x, 0.5 * x]))
    except Exception as error:
        broken_by(law, error, "no error", "Adaptive solvers and sweeps map a network over an axis")
    off = _distance(output, found[0])
    demand(law, off <= 1e-4, off, "equal within 1e-4")


def _gradient(backbone: Any, x: Batch, c_noise: Array, cond: Cond) -> None:
    @eqx.filter_jit
    def gradient(backbone: Any) -> Any:
        def size(backbone: Any) -> Array:
            output = backbone(x, c_noise, cond, key=None)
            return jnp.mean((output - 0.3) ** 2)

        return eqx.filter_grad(size)(backbone)

    leaves = jax.tree.leaves(eqx.filter(backbone, eqx.is_inexact_array))
    if not leaves:
        return
    grads = [np.asarray(g) for g in jax.tree.leaves(gradient(backbone))]
    finite = all(np.isfinite(g).all() for g in grads)
    demand("the gradient of every weight is finite", finite, "NaN or infinity", "finite numbers")
    size = max(float(np.abs(g).max()) for g in grads)
    demand(
        "some weight has a gradient", size > 0.0, size, "more than 0", "Is a stop_gradient left?"
    )


def _half(backbone: Any, x: Batch, c_noise: Array, cond: Cond, output: Array) -> None:
    law = "cast to bfloat16 a network gives nearly the same"
    small = cast(backbone, jnp.bfloat16)
    if not jax.tree.leaves(eqx.filter(backbone, eqx.is_inexact_array)):
        return
    try:
        inside = _call(small, x.astype(jnp.bfloat16), c_noise, cast(cond, jnp.bfloat16))
        found = eqx.filter_jit(at_edge)(small, x, c_noise, cond, key=None)
    except Exception as error:
        broken_by(law, error, "no error", "Give constants the dtype of the input")
    demand(
        "a network computes in the dtype of its weights",
        inside.dtype == jnp.bfloat16,
        inside.dtype,
        "bfloat16",
        "A constant of float32 somewhere raises all that follows",
    )
    demand(
        "the edge gives back the input's dtype", found.dtype == x.dtype, found.dtype, str(x.dtype)
    )
    size = float(jnp.sqrt(jnp.mean(output**2)))
    off = float(jnp.sqrt(jnp.mean((found - output) ** 2))) / max(size, 1e-3)
    demand(law, off <= 0.1, off, "a relative difference of at most 0.1")
