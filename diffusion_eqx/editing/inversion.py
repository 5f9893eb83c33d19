"""DDIM inversion: the noise from which deterministic DDIM returns a given image."""

import equinox as eqx
import jax
import jax.numpy as jnp

from diffusion_eqx._typing import Batch, Cond
from diffusion_eqx.editing.fixed_point import fixed_point
from diffusion_eqx.samplers.ddim import DDIMSampler


@eqx.filter_jit
def ddim_invert(
    sampler: DDIMSampler, images: Batch, *, steps: int, iterations: int = 1, cond: Cond = None
) -> Batch:
    """The standard normal noise from which `sample_from` returns `images`; see `ddim_invert_to`.

    **Raises:** `ValueError` if the sampler is stochastic (eta other than 0) or `iterations` < 1.
    """
    x = ddim_invert_to(sampler, images, begin=0, steps=steps, iterations=iterations, cond=cond)
    return x / sampler.denoiser.schedule.sigma(jnp.asarray(1.0))


@eqx.filter_jit
def ddim_invert_to(
    sampler: DDIMSampler,
    images: Batch,
    *,
    begin: int,
    steps: int,
    iterations: int = 1,
    cond: Cond = None,
) -> Batch:
    """Run the steps of DDIM backwards, from x_s to x_t with t > s, up to the grid's time at `begin`.

    A DDIM step reads x_s = alpha_s·x0(x_t, t) + sigma_s·eps(x_t, t), so its inverse is the fixed point of
    either of

        x_t = (alpha_t/alpha_s)·x_s + (sigma_t − sigma_s·alpha_t/alpha_s)·eps(x_t, t)
        x_t = (sigma_t/sigma_s)·x_s + (alpha_t − alpha_s·sigma_t/sigma_s)·x0(x_t, t)

    of which the first contracts where there is more signal than noise, the second where there is less. One
    iteration from x_t := x_s of the first is the usual inversion (Song et al. 2021, section 4.3), wrong by
    the change of the prediction over one step; more iterations, sped up by Anderson's method, converge to
    the exact inverse (Pan et al. 2023). The step to s = 0 is the hardest: a grid that begins it at little
    noise, such as `LogSNRGrid`, is inverted far more exactly than `TrailingGrid`. Cost: `iterations`
    evaluations a step. Returns noisy examples for `sample_between`, of the shape of `images`.

    **Raises:** `ValueError` if the sampler is stochastic (eta other than 0), `iterations` < 1, or unless
    0 <= begin < steps.
    """
    if not sampler.deterministic:
        raise ValueError("only deterministic DDIM can be inverted: the sampler needs eta=0.0")
    if iterations < 1:
        raise ValueError(f"iterations must be at least 1; got {iterations}")
    if not 0 <= begin < steps:
        raise ValueError(f"begin must satisfy 0 <= begin < steps={steps}; got {begin}")
    schedule = sampler.denoiser.schedule

    def body(x_s: Batch, index) -> tuple[Batch, None]:
        t, s = sampler.times(index, steps)
        alpha_t, alpha_s = schedule.alpha(t), schedule.alpha(s)
        sigma_t, sigma_s = schedule.sigma(t), schedule.sigma(s)
        by_eps = alpha_t / alpha_s
        # Not used at s = 0, where it has no meaning.
        by_x0 = sigma_t / jnp.where(sigma_s > 0.0, sigma_s, 1.0)
        noisy = alpha_t < sigma_s

        def improve(x_t: Batch) -> Batch:
            predicted = sampler.denoiser(x_t, t, cond)
            return jnp.where(
                noisy,
                by_x0 * x_s + (alpha_t - alpha_s * by_x0) * predicted.x0,
                by_eps * x_s + (sigma_t - sigma_s * by_eps) * predicted.eps,
            )

        return fixed_point(improve, x_s, iterations=iterations), None

    return jax.lax.scan(body, images, jnp.arange(steps - 1, begin - 1, -1, dtype=jnp.int32))[0]
