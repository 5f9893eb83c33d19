"""Progressive distillation: a student learns to do in one step what its teacher does in two.

Repeated with the student as the next teacher, N steps become N/2, N/4, … 1 (Salimans & Ho 2022). The first
teacher may be guided. Its guidance is then learnt, and the students are sampled without (Meng et al. 2023).
"""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import pairwise

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from diffusion_eqx._typing import Batch, Cond
from diffusion_eqx.config import TrainingConfig
from diffusion_eqx.data import Dataset
from diffusion_eqx.denoiser import AbstractDenoiser, Backbone, Denoiser
from diffusion_eqx.distillation.steps import (
    check_steps,
    check_student,
    follow,
    random_steps,
    unbound,
    weighted_error,
)
from diffusion_eqx.losses import AbstractLoss, Draws
from diffusion_eqx.parameterizations import AbstractParameterization
from diffusion_eqx.random_keys import NET, NOISE
from diffusion_eqx.samplers import AbstractGrid, TrailingGrid
from diffusion_eqx.training import Callback, Run, averaged, fit, make_recipe


class ProgressiveLoss(AbstractLoss):
    """max(SNR, 1)·‖x0 − x̃‖², where one step to x̃ ends where two of the teacher do.

    Let s be the end of a student's step from t, and x_s where two DDIM steps of the teacher lead from x_t.
    Then

        x̃ = (x_s − (sigma_s/sigma_t)·x_t) / (alpha_s − (sigma_s/sigma_t)·alpha_t)

    (Salimans & Ho 2022, algorithm 2 and eq. 9). `loss(network, x0, cond, key=key)` is the loss of a batch.

    - `student`: whose schedule, parameterization and null condition are those of the training. Its network
      is not kept: what is trained is given with each call.
    - `teacher`: a denoiser of the same schedule.
    - `steps`: how many the student takes, on `grid`; an array, so that all stages are one program.

    **Raises:** `ValueError` if the student learns its variance, or has another schedule than the teacher.
    """

    teacher: AbstractDenoiser
    parameterization: AbstractParameterization
    null: Cond
    steps: Int[Array, ""]
    grid: AbstractGrid

    def __init__(
        self,
        student: Denoiser,
        teacher: AbstractDenoiser,
        steps: int | Int[Array, ""],
        grid: AbstractGrid = TrailingGrid(),
    ):
        check_student(student, teacher)
        self.teacher = teacher
        self.parameterization = student.parameterization
        self.null = student.null
        self.steps = jnp.asarray(steps, jnp.int32)
        self.grid = grid

    def each(
        self, network: Backbone, x0: Batch, cond: Cond, draws: Draws
    ) -> Float[Array, " batch"]:
        """The loss of each clean example of a batch in [−1, 1], at a random step of the student."""
        schedule = self.teacher.schedule
        t, middle, s = random_steps(self.grid, schedule, self.steps, draws)
        x_t = t.noised(x0, draws.normal(NOISE, x0.shape[1:], x0.dtype))
        x_s = jax.lax.stop_gradient(follow(self.teacher, x_t, (t, middle, s), cond))
        start, end = t.over(x0), s.over(x0)
        ratio = end.sigma / start.sigma
        target = (x_s - ratio * x_t) / (end.alpha - ratio * start.alpha)
        student = Denoiser(network, schedule, self.parameterization, self.null)
        return weighted_error(t, student(x_t, t, cond, key=draws.keys(NET)).x0, target)


def distill_progressively(
    teacher: AbstractDenoiser,
    student: Denoiser,
    data: Dataset,
    config: TrainingConfig,
    *,
    stages: Sequence[int],
    grid: AbstractGrid = TrailingGrid(),
    runs: Callable[[int], Run] | None = None,
    callbacks: Iterable[Callback] = (),
) -> Iterator[tuple[int, Denoiser]]:
    """Train students of fewer and fewer steps, each by the one before it; the first by `teacher`.

    - `teacher`: any denoiser; if it is guided, its guidance is learnt too.
    - `student`: where the first one starts, usually the teacher's own network.
    - `data`: examples as the teacher was trained on, with labels if it has a condition.
    - `config`: of each stage; what it says of noise levels and labels does not matter here.
    - `stages`: numbers of steps, each half of the one before, such as (16, 8, 4, 2, 1).
    - `runs`: gives the run of a stage, by its steps; a stage that is finished in its folder is not trained
      again.
    - `callbacks`: as in `fit`, for each stage.

    Yields (steps, student) after each stage. Sample a student by `DDIMSampler` with just so many steps on
    the same grid.

    **Raises:** `ValueError` unless the stages halve and the grid has twice the steps of the first; or if
    the student learns its variance, or has another schedule than the teacher; otherwise as `fit`.
    """
    if not stages or stages[-1] < 1 or any(b * 2 != a for a, b in pairwise(stages)):
        raise ValueError(
            f"each stage must have half the steps of the one before, and the last at least 1; got {stages}"
        )
    check_steps(grid, teacher.schedule, stages[0])
    check_student(student, teacher)
    return _stages(teacher, student, data, config, stages, grid, runs, tuple(callbacks))


def _stages(
    teacher: AbstractDenoiser,
    student: Denoiser,
    data: Dataset,
    config: TrainingConfig,
    stages: Sequence[int],
    grid: AbstractGrid,
    runs: Callable[[int], Run] | None,
    callbacks: Sequence[Callback],
) -> Iterator[tuple[int, Denoiser]]:
    teacher, student = unbound(eqx.nn.inference_mode(teacher)), unbound(student)
    recipe = make_recipe(config, ProgressiveLoss(student, teacher, stages[0], grid))
    for steps in stages:
        # The optimiser stays the same object, so that a stage compiles nothing.
        recipe = dataclasses.replace(recipe, loss=ProgressiveLoss(student, teacher, steps, grid))
        run = None if runs is None else runs(steps)
        state, _ = fit(student.backbone, data, recipe, config, run=run, callbacks=callbacks)
        student = eqx.tree_at(lambda d: d.backbone, student, unbound(averaged(state)))
        finished: Denoiser = eqx.nn.inference_mode(student)
        teacher = finished
        yield steps, finished
