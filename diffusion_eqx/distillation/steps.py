"""What the losses of students share: a step, a teacher's way along it, and what errors weigh."""

from itertools import pairwise

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from diffusion_eqx._typing import Batch, Cond, PRNGKey, Scalar, Time
from diffusion_eqx.denoiser import AbstractDenoiser, Denoiser
from diffusion_eqx.losses import stratified_timesteps
from diffusion_eqx.samplers import AbstractGrid
from diffusion_eqx.schedules import AbstractSchedule, like


def random_steps(
    grid: AbstractGrid,
    schedule: AbstractSchedule,
    steps: Int[Array, ""],
    count: int,
    *,
    key: PRNGKey,
) -> tuple[Time, Time, Time]:
    """Start, middle and end, each (count,), of `count` random ones among the `steps` steps of a grid."""
    index = 2 * stratified_timesteps(key, count, steps)
    start, middle, end = (
        jax.vmap(lambda i: grid(schedule, i, 2 * steps))(index + offset) for offset in range(3)
    )
    return start, middle, end


def follow(teacher: AbstractDenoiser, x: Batch, times: tuple[Time, ...], cond: Cond) -> Batch:
    """Carry `x` from the first of decreasing `times` to the last by a DDIM step between neighbours.

    Each step is x_s = alpha_s·x0(x_t, t) + sigma_s·eps(x_t, t) (Song et al. 2021, eq. 12 at eta = 0).
    """
    for t, s in pairwise(times):
        predicted = teacher(x, t, cond)
        alpha, sigma = teacher.schedule.alpha(s), teacher.schedule.sigma(s)
        x = like(alpha, x) * predicted.x0 + like(sigma, x) * predicted.eps
    return x


def mean_error(schedule: AbstractSchedule, t: Time, found: Batch, target: Batch) -> Scalar:
    """The mean of max(SNR, 1)·(found − target)² over a batch (Salimans & Ho 2022, eq. 9)."""
    error = jnp.mean((found - target) ** 2, axis=range(1, found.ndim))
    return jnp.mean(jnp.maximum(jnp.exp(schedule.log_snr(t)), 1.0) * error)


def refuse_learned_variance(student: Denoiser) -> None:
    """Raises `ValueError` if the student learns the variance of steps, which few-step students have not."""
    if student.learned_variance:
        raise ValueError(
            "the student's network learns the variance of steps (learn_sigma), of which a student of few "
            "steps makes no use: distil into a network without it"
        )
