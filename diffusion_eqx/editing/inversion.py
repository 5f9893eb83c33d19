"""DDIM inversion: the noise from which deterministic DDIM returns a given image."""

import equinox as eqx
import jax
import jax.numpy as jnp

from diffusion_eqx._typing import Batch, Cond
from diffusion_eqx.samplers.ddim import DDIMSampler


@eqx.filter_jit
def ddim_invert(
    sampler: DDIMSampler, images: Batch, *, steps: int, iterations: int = 1, cond: Cond = None
) -> Batch:
    """Run the steps of DDIM backwards, from x_s to x_t with t > s.

    A DDIM step reads x_s = alpha_s·x0(x_t, t) + sigma_s·eps(x_t, t), so its inverse is the fixed point

        x_t = (alpha_t/alpha_s)·x_s + (sigma_t − sigma_s·alpha_t/alpha_s)·eps(x_t, t).

    One iteration from x_t := x_s is the usual inversion (Song et al. 2021, section 4.3), wrong by the
    change of eps over one step; more iterations converge to the exact inverse (Pan et al. 2023).
    Cost: `iterations` evaluations a step. Returns standard normal noise (for `sample_from`), of the
    shape of `images`.

    **Raises:** `ValueError` if the sampler is stochastic (eta other than 0) or `iterations` < 1.
    """
    if not sampler.deterministic:
        raise ValueError("only deterministic DDIM can be inverted: the sampler needs eta=0.0")
    if iterations < 1:
        raise ValueError(f"iterations must be at least 1; got {iterations}")
    schedule = sampler.denoiser.schedule

    def body(x_s: Batch, index) -> tuple[Batch, None]:
        t, s = sampler.times(index, steps)
        ratio = schedule.alpha(t) / schedule.alpha(s)
        gain = schedule.sigma(t) - schedule.sigma(s) * ratio

        def improve(_, x_t: Batch) -> Batch:
            return ratio * x_s + gain * sampler.denoiser(x_t, t, cond).eps

        return jax.lax.fori_loop(0, iterations, improve, x_s), None

    x, _ = jax.lax.scan(body, images, jnp.arange(steps - 1, -1, -1, dtype=jnp.int32))
    return x / schedule.sigma(jnp.asarray(1.0))
