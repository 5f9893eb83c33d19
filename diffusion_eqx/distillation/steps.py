"""What the losses of students share: a step, a teacher's way along it, and what errors weigh."""

from itertools import pairwise
from typing import Any, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from diffusion_eqx._typing import Batch, Cond
from diffusion_eqx.denoiser import AbstractDenoiser, Denoiser
from diffusion_eqx.losses import Draws
from diffusion_eqx.random_keys import is_key
from diffusion_eqx.samplers import AbstractGrid
from diffusion_eqx.schedules import AbstractSchedule, NoiseLevel

TreeT = TypeVar("TreeT")


def random_steps(
    grid: AbstractGrid,
    schedule: AbstractSchedule,
    steps: Int[Array, ""],
    draws: Draws,
) -> tuple[NoiseLevel, NoiseLevel, NoiseLevel]:
    """Start, middle and end of a random one among the `steps` steps of a grid for each row, (batch,).

    A step of the grid is two steps of the grid of twice as many.
    """
    share = draws.uniforms() * steps.astype(float)
    index = 2 * jnp.minimum(share.astype(jnp.int32), steps - 1)
    start, middle, end = (grid(schedule, index + offset, 2 * steps) for offset in range(3))
    return start, middle, end


def follow(
    teacher: AbstractDenoiser, x: Batch, levels: tuple[NoiseLevel, ...], cond: Cond
) -> Batch:
    """Carry `x` from the first of ever cleaner levels to the last by a DDIM step between neighbours.

    Each step is x_s = alpha_s·x0(x_t, t) + sigma_s·eps(x_t, t) (Song et al. 2021, eq. 12 at eta = 0).
    """
    for t, s in pairwise(levels):
        x0, eps = teacher(x, t, cond)
        x = s.noised(x0, eps)
    return x


def weighted_error(level: NoiseLevel, found: Batch, target: Batch) -> Float[Array, " batch"]:
    """The mean of max(SNR, 1)·(found − target)² of each example (Salimans & Ho 2022, eq. 9)."""
    error = jnp.mean((found - target) ** 2, axis=range(1, found.ndim))
    return jnp.maximum(jnp.exp(level.log_snr), 1.0) * error


def unbound(tree: TreeT) -> TreeT:
    """The tree with its arrays bound to no device.

    `fit` gives back arrays of one device. As a part of the next loss they would not go with a state that is
    split over several, and even on one device they would be compiled for anew.
    """

    def free(leaf: Any) -> Any:
        movable = eqx.is_array(leaf) and not is_key(leaf)
        return jnp.asarray(np.asarray(leaf)) if movable else leaf

    return jax.tree.map(free, tree)


def check_student(student: Denoiser, teacher: AbstractDenoiser | None) -> None:
    """Check that a student can learn from its teacher.

    **Raises:** `ValueError` if it learns the variance of steps, or has another schedule than the teacher.
    """
    if student.learned_variance:
        raise ValueError(
            "the student's network learns the variance of steps (learn_sigma), of which a student of few "
            "steps makes no use: distil into a network without it"
        )
    if teacher is not None and not eqx.tree_equal(student.schedule, teacher.schedule):
        raise ValueError(
            "student and teacher have different noise schedules, so that a step of one is no "
            "step of the other; give the student the teacher's schedule"
        )


def check_steps(grid: AbstractGrid, schedule: AbstractSchedule, steps: int) -> None:
    """Check that a grid is fine enough for a stage.

    **Raises:** `ValueError` if it has not twice as many steps, which the teacher takes.
    """
    try:
        grid.check(schedule, 2 * steps)
    except ValueError as error:
        raise ValueError(
            f"a stage of {steps} steps needs a teacher of {2 * steps}: {error}"
        ) from error
