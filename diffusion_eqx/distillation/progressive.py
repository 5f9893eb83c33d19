"""Progressive distillation: a student learns to do in one step what its teacher does in two.

Repeated with the student as the next teacher, N steps become N/2, N/4, … 1 (Salimans & Ho 2022). The first
teacher may be guided; its guidance is then learnt, and the students are sampled without (Meng et al. 2023).
"""

import dataclasses
from collections.abc import Iterator, Sequence
from itertools import pairwise

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from diffusion_eqx._typing import Batch, Cond, PRNGKey, Scalar
from diffusion_eqx.config import DiffusionTrainingConfig
from diffusion_eqx.data import Dataset
from diffusion_eqx.denoiser import AbstractDenoiser, Backbone, Denoiser
from diffusion_eqx.distillation.steps import (
    follow,
    mean_error,
    random_steps,
    refuse_learned_variance,
)
from diffusion_eqx.parameterization import AbstractParameterization
from diffusion_eqx.samplers import AbstractGrid, TrailingGrid
from diffusion_eqx.schedules import like
from diffusion_eqx.training.loop import Cadence, fit
from diffusion_eqx.training.step import averaged, make_recipe


class ProgressiveLoss(eqx.Module):
    """max(SNR, 1)·‖x0 − x̃‖², where one step to x̃ ends where two of the teacher do.

    With s the end of a student's step from t, m its middle, and x_s the teacher's x at s,

        x̃ = (x_s − (sigma_s/sigma_t)·x_t) / (alpha_s − (sigma_s/sigma_t)·alpha_t)

    (Salimans & Ho 2022, algorithm 2 and eq. 9). `steps`: of the student, on `grid`; it may be traced.
    """

    teacher: AbstractDenoiser
    parameterization: AbstractParameterization
    # An array, so that all stages are one compiled program.
    steps: Int[Array, ""] = eqx.field(converter=jnp.asarray)
    grid: AbstractGrid = TrailingGrid()

    def __call__(self, backbone: Backbone, x0: Batch, cond: Cond = None, *, key: PRNGKey) -> Scalar:
        """The mean over a batch of clean examples in [−1, 1], each at a random step of the student."""
        key_index, key_noise, key_network = jax.random.split(key, 3)
        schedule = self.teacher.schedule
        t, middle, s = random_steps(self.grid, schedule, self.steps, len(x0), key=key_index)
        x_t = schedule.perturb(x0, t, jax.random.normal(key_noise, x0.shape, x0.dtype))
        x_s = jax.lax.stop_gradient(follow(self.teacher, x_t, (t, middle, s), cond))
        ratio = schedule.sigma(s) / schedule.sigma(t)
        target = (x_s - like(ratio, x_t) * x_t) / like(
            schedule.alpha(s) - ratio * schedule.alpha(t), x_t
        )
        student = Denoiser(backbone, schedule, self.parameterization)
        return mean_error(schedule, t, student(x_t, t, cond, key=key_network).x0, target)


def distill_progressively(
    teacher: AbstractDenoiser,
    student: Denoiser,
    dataset: Dataset,
    training: DiffusionTrainingConfig,
    *,
    stages: Sequence[int],
    grid: AbstractGrid = TrailingGrid(),
    cadence: Cadence = Cadence(),
) -> Iterator[tuple[int, Denoiser]]:
    """Train students of fewer and fewer steps, each by the one before it; the first by `teacher`.

    `student`: where the first one starts, usually the teacher's own network. `stages`: numbers of steps,
    each half of the one before, such as (16, 8, 4, 2, 1); each is trained as `training` says (what it says
    of noise levels and labels does not matter here). Yields (steps, student) after each stage, to be
    sampled by `DDIMSampler` with just so many steps on the same grid.

    **Raises:** `ValueError` unless the stages halve, or if the student learns its variance; otherwise as
    `fit`.
    """
    if not stages or stages[-1] < 1 or any(b * 2 != a for a, b in pairwise(stages)):
        raise ValueError(
            f"each stage must have half the steps of the one before, and the last at least 1; got {stages}"
        )
    refuse_learned_variance(student)
    recipe = make_recipe(training, ProgressiveLoss(teacher, student.parameterization, 1, grid))
    for steps in stages:
        loss = ProgressiveLoss(teacher, student.parameterization, steps, grid)
        # The optimiser stays the same object, for the same reason.
        recipe = dataclasses.replace(recipe, loss=loss)
        state, _ = fit(student.backbone, dataset, recipe, training, cadence=cadence)
        student = eqx.tree_at(lambda d: d.backbone, student, averaged(state))
        finished: Denoiser = eqx.nn.inference_mode(student)
        teacher = finished
        yield steps, finished
