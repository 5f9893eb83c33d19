"""Consistency models: networks that map every noisy example to the end of its trajectory in one step.

Neighbours on a trajectory must have the same end. Distillation takes the neighbour from a teacher, training
from the data itself (Song et al. 2023, algorithms 2 and 3). The neighbour's end is the network's own, held
constant, without an average of its own; grids become finer in stages (both Song & Dhariwal 2024).
"""

import dataclasses
from collections.abc import Sequence

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
from diffusion_eqx.schedules import AbstractSchedule, like
from diffusion_eqx.training.loop import Cadence, fit
from diffusion_eqx.training.step import averaged, make_recipe


class ConsistencyLoss(eqx.Module):
    """max(SNR, 1)·‖f(x_t, t) − f⁻(x_s, s)‖², for neighbours s < t of a grid of `steps` steps.

    f is the x0 that the network predicts, f⁻ the same held constant, and f⁻(x, 0) = x. Without a `teacher`,
    x_s has the noise of x_t (consistency training); with one, x_s is where two of its DDIM steps lead from
    x_t (consistency distillation). The weight is that of `ProgressiveLoss`: without it, what little noise
    does to x0 is not worth learning, and f becomes noise where the noise is little.
    `steps` may be traced.

    **Raises:** `ValueError` if the parameterization does not give back a clean example as it is, as the
    definition of a consistency model demands.
    """

    schedule: AbstractSchedule
    parameterization: AbstractParameterization
    # An array, so that all stages are one compiled program.
    steps: Int[Array, ""] = eqx.field(converter=jnp.asarray)
    teacher: AbstractDenoiser | None = None
    grid: AbstractGrid = TrailingGrid()

    def __check_init__(self):
        clean = self.parameterization.coefficients(self.schedule, jnp.zeros(()))
        if abs(float(clean.c_skip) - 1.0) > 0.02 or abs(float(clean.c_out)) > 0.02:
            raise ValueError(
                f"{type(self.parameterization).__name__} does not return x itself at t = 0 "
                f"(c_skip {float(clean.c_skip):.3g}, c_out {float(clean.c_out):.3g}), which a consistency "
                "model must; choose Epsilon, VPrediction, Velocity or EDM"
            )

    def __call__(self, backbone: Backbone, x0: Batch, cond: Cond = None, *, key: PRNGKey) -> Scalar:
        """The mean over a batch of clean examples in [−1, 1], each at a random step of the grid."""
        key_index, key_noise, key_network = jax.random.split(key, 3)
        schedule = self.schedule
        t, middle, s = random_steps(self.grid, schedule, self.steps, len(x0), key=key_index)
        noise = jax.random.normal(key_noise, x0.shape, x0.dtype)
        x_t = schedule.perturb(x0, t, noise)
        if self.teacher is None:
            x_s = schedule.perturb(x0, s, noise)
        else:
            x_s = follow(self.teacher, x_t, (t, middle, s), cond)
        network = Denoiser(backbone, schedule, self.parameterization)
        clean = like(s, x0) == 0.0
        # One key for both: what dropout drops is the same.
        end = network(x_s, jnp.where(s > 0.0, s, t), cond, key=key_network).x0
        end = jax.lax.stop_gradient(jnp.where(clean, x_s, end))
        found = network(x_t, t, cond, key=key_network).x0
        return mean_error(schedule, t, found, end)


def train_consistency(
    student: Denoiser,
    dataset: Dataset,
    training: DiffusionTrainingConfig,
    *,
    stages: Sequence[int] = (8, 16, 32, 64),
    teacher: AbstractDenoiser | None = None,
    grid: AbstractGrid = TrailingGrid(),
    cadence: Cadence = Cadence(),
) -> Denoiser:
    """Train `student` to be a consistency model: distilled from a `teacher`, or from data alone.

    `stages`: numbers of steps of ever finer grids, each trained as `training` says (what that says of noise
    levels and labels does not matter here). A trained denoiser is a good start for the student. A guided
    teacher's guidance is learnt with the rest. Sample by `ConsistencySampler` in 1 to 4 steps.

    **Raises:** `ValueError` as `ConsistencyLoss`, for wrong stages, or if the student learns its variance;
    otherwise as `fit`.
    """
    if not stages or min(stages) < 1:
        raise ValueError(f"stages must be numbers of steps, at least one; got {stages}")
    refuse_learned_variance(student)
    loss = ConsistencyLoss(student.schedule, student.parameterization, 1, teacher, grid)
    recipe = make_recipe(training, loss)
    for steps in stages:
        # The optimiser stays the same object, for the same reason.
        recipe = dataclasses.replace(
            recipe, loss=dataclasses.replace(loss, steps=jnp.asarray(steps))
        )
        state, _ = fit(student.backbone, dataset, recipe, training, cadence=cadence)
        student = eqx.tree_at(lambda d: d.backbone, student, averaged(state))
    return eqx.nn.inference_mode(student)
