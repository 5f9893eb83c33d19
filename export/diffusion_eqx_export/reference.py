"""A few images as Python draws them, for `verify` to compare with (FORMAT.md, 3.6)."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from diffusion_eqx.models import Plan
from diffusion_eqx.samplers import Bound, Walk, begin_from_noise, draw, image_keys, sample
from diffusion_eqx_export.parameters import steps_for
from diffusion_eqx_export.settings import seed_words, wrap_keys

_STEPS = 10
_SEED = 7
_COUNT = 2

# Greatest differences of an image from Python's: on a CPU, and elsewhere. Where a solver accepts a step or
# not by a hair, two devices part, as far as the solver's own error goes.
_FIXED = (5e-5, 1e-2)
_ADAPTIVE = (5e-2, 5e-2)


def draw_reference(
    plan: Plan, labels: dict[str, Any] | None, described: dict[str, Any], cpu: Any
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The manifest's `reference` and its tensors.

    **Raises:** `ValueError` if an image is not finite.
    """
    # A sampler that chooses its levels takes as many steps as it needs: the default allows them.
    adaptive = plan.sampler.chooses_levels
    steps = plan.steps if adaptive else steps_for(plan, _STEPS)
    chosen = None if labels is None else [i % labels["count"] for i in (3, 5)]
    cond = None if chosen is None else jnp.asarray(chosen, jnp.int32)
    arrays, static = eqx.partition(plan, eqx.is_array)
    arrays, words, cond = jax.device_put((arrays, seed_words(_SEED), cond), cpu)

    # Noise is drawn for any number of steps, as `init` draws it; images for these steps. Both are in one
    # program, since they share a draw, which takes long to compile. While `jit` traces it, the library's
    # driver leaves the choice of devices to what surrounds it.
    @jax.jit
    def drawn(arrays: Any, words: jax.Array, any_steps: jax.Array, cond: Any) -> Any:
        plan = eqx.combine(arrays, static)
        key = wrap_keys(words)
        keys = image_keys(key, _COUNT)
        walk = Walk.of(plan.sampler.grid, plan.denoiser.schedule, any_steps)
        noise = draw(keys, 0, plan.shape)
        denoise = Bound(plan.denoiser, cond)
        image = sample(
            plan.denoiser,
            plan.sampler,
            plan.shape,
            count=_COUNT,
            steps=steps,
            key=key,
            cond=cond,
            decode=plan.decode,
        )
        return begin_from_noise(plan.sampler, denoise, walk, noise, keys=keys).x, image

    with jax.default_device(cpu):
        noise, image = drawn(arrays, words, jnp.asarray(steps, jnp.int32), cond)
    noise, image = np.asarray(noise), np.asarray(image, np.float32)
    if not np.isfinite(image).all():
        raise ValueError(
            f"the sampler's images are not finite in {steps} steps; an adaptive sampler needs more steps "
            "to arrive"
        )
    on_cpu, elsewhere = _ADAPTIVE if adaptive else _FIXED
    reference = {
        "seed": _SEED,
        "steps": steps,
        "parameters": {n: p["default"] for n, p in described.items() if n != "steps"},
        "labels": chosen,
        "count": _COUNT,
        "tolerance": {
            "cpu": {"noise": 0.0, "image": on_cpu},
            "other": {"noise": 1e-5, "image": elsewhere},
        },
    }
    return reference, {"reference/noise": noise, "reference/image": image}
