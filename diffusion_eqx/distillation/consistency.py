"""Consistency models: networks that map every noisy example to the end of its trajectory in one step.

Neighbours on a trajectory must have the same end. Distillation takes the neighbour from a teacher, training
from the data itself (Song et al. 2023, algorithms 2 and 3). The neighbour's end is the network's own, held
constant, without an average of its own; grids become finer in stages (both Song & Dhariwal 2024).
"""

import dataclasses
from collections.abc import Callable, Iterable, Sequence

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
from diffusion_eqx.schedules import AbstractSchedule, over
from diffusion_eqx.training import Callback, Run, averaged, fit, make_recipe

# How far c_skip may be from 1, and c_out from 0, at t = 0.
_ROUNDING = 0.02


class ConsistencyLoss(AbstractLoss):
    """max(SNR, 1)·‖f(x_t, t) − f⁻(x_s, s)‖², for neighbours s < t of a grid of `steps` steps.

    f is the x0 that the network predicts, f⁻ the same held constant, and f⁻(x, 0) = x. Without a teacher,
    x_s has the noise of x_t (consistency training). With one, x_s is where two of its DDIM steps lead from
    x_t (consistency distillation). The weight is that of `ProgressiveLoss`: without it, what little noise
    does to x0 is not worth learning, and f becomes noise where the noise is little. `loss(network, x0,
    cond, key=key)` is the loss of a batch.

    - `student`: whose schedule, parameterization and null condition are those of the training. Its network
      is not kept: what is trained is given with each call.
    - `steps`: of `grid`; an array, so that all stages are one program.
    - `teacher`: a denoiser of the same schedule, or None.

    **Raises:** `ValueError` if the parameterization does not give back a clean example as it is, as the
    definition of a consistency model demands; if the student learns its variance, or has another schedule
    than the teacher.
    """

    schedule: AbstractSchedule
    parameterization: AbstractParameterization
    null: Cond
    steps: Int[Array, ""]
    teacher: AbstractDenoiser | None
    grid: AbstractGrid

    def __init__(
        self,
        student: Denoiser,
        steps: int | Int[Array, ""],
        teacher: AbstractDenoiser | None = None,
        grid: AbstractGrid = TrailingGrid(),
    ):
        check_student(student, teacher)
        _check_ends(student)
        self.schedule = student.schedule
        self.parameterization = student.parameterization
        self.null = student.null
        self.steps = jnp.asarray(steps, jnp.int32)
        self.teacher = teacher
        self.grid = grid

    def each(
        self, network: Backbone, x0: Batch, cond: Cond, draws: Draws
    ) -> Float[Array, " batch"]:
        """The loss of each clean example of a batch in [−1, 1], at a random step of the grid."""
        t, middle, s = random_steps(self.grid, self.schedule, self.steps, draws)
        noise = draws.normal(NOISE, x0.shape[1:], x0.dtype)
        x_t = t.noised(x0, noise)
        if self.teacher is None:
            x_s = s.noised(x0, noise)
        else:
            x_s = follow(self.teacher, x_t, (t, middle, s), cond)
        student = Denoiser(network, self.schedule, self.parameterization, self.null)
        # One key for both: what dropout drops is the same. A prediction has no meaning at the clean level.
        end = student(x_s, t.where(s.clean, s), cond, key=draws.keys(NET)).x0
        end = jax.lax.stop_gradient(jnp.where(over(s.clean, x0), x_s, end))
        found = student(x_t, t, cond, key=draws.keys(NET)).x0
        return weighted_error(t, found, end)


def train_consistency(
    student: Denoiser,
    data: Dataset,
    config: TrainingConfig,
    *,
    stages: Sequence[int] = (8, 16, 32, 64),
    teacher: AbstractDenoiser | None = None,
    grid: AbstractGrid = TrailingGrid(),
    runs: Callable[[int], Run] | None = None,
    callbacks: Iterable[Callback] = (),
) -> Denoiser:
    """Train a student to be a consistency model: distilled from a teacher, or from data alone.

    - `student`: where it starts; a trained denoiser is a good start.
    - `data`: examples, with labels if the student has a condition.
    - `config`: of each stage; what it says of noise levels and labels does not matter here.
    - `stages`: numbers of steps of ever finer grids.
    - `teacher`: a denoiser, or None. If it is guided, its guidance is learnt too.
    - `runs`: gives the run of a stage, by its steps; a stage that is finished in its folder is not trained
      again.
    - `callbacks`: as in `fit`, for each stage.

    Returns the student. Sample it by `ConsistencySampler` in 1 to 4 steps.

    **Raises:** `ValueError` as `ConsistencyLoss`, or for stages of less than one step or more than half of
    what the grid has; otherwise as `fit`.
    """
    if not stages or min(stages) < 1:
        raise ValueError(f"stages must be numbers of steps, at least one; got {stages}")
    check_steps(grid, student.schedule, max(stages))
    callbacks = tuple(callbacks)
    guide = None if teacher is None else unbound(eqx.nn.inference_mode(teacher))
    student = unbound(student)
    recipe = make_recipe(config, ConsistencyLoss(student, stages[0], guide, grid))
    for steps in stages:
        # The optimiser stays the same object, so that a stage compiles nothing.
        recipe = dataclasses.replace(recipe, loss=ConsistencyLoss(student, steps, guide, grid))
        run = None if runs is None else runs(steps)
        state, _ = fit(student.backbone, data, recipe, config, run=run, callbacks=callbacks)
        student = eqx.tree_at(lambda d: d.backbone, student, unbound(averaged(state)))
    return eqx.nn.inference_mode(student)


def _check_ends(student: Denoiser) -> None:
    clean = student.coefficients(student.schedule.at(0.0))
    skip, out = float(clean.c_skip), float(clean.c_out)
    if abs(skip - 1.0) > _ROUNDING or abs(out) > _ROUNDING:
        raise ValueError(
            f"{type(student.parameterization).__name__} does not return x itself at t = 0 (c_skip "
            f"{skip:.3g}, c_out {out:.3g}), which a consistency model must; choose EpsilonPrediction, "
            "VPrediction, VelocityPrediction or EDMPrediction"
        )
