"""What a teacher shows: where its deterministic DDIM carries a noisy example."""

from itertools import pairwise

from diffusion_eqx._typing import Batch, Cond, Time
from diffusion_eqx.denoiser import AbstractDenoiser
from diffusion_eqx.schedules import like


def follow(teacher: AbstractDenoiser, x: Batch, times: tuple[Time, ...], cond: Cond) -> Batch:
    """Carry `x` from the first of decreasing `times` to the last by a DDIM step between neighbours.

    Each step is x_s = alpha_s·x0(x_t, t) + sigma_s·eps(x_t, t) (Song et al. 2021, eq. 12 at eta = 0).
    """
    for t, s in pairwise(times):
        predicted = teacher(x, t, cond)
        alpha, sigma = teacher.schedule.alpha(s), teacher.schedule.sigma(s)
        x = like(alpha, x) * predicted.x0 + like(sigma, x) * predicted.eps
    return x
