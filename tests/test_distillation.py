"""Few-step students: the losses against what is exact for a Gaussian, and what is refused."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion_eqx._typing import Batch, Cond, PRNGKey, Time
from diffusion_eqx.config import DiffusionTrainingConfig
from diffusion_eqx.data import ArrayDataset
from diffusion_eqx.denoiser import Denoiser, GaussianDenoiser
from diffusion_eqx.distillation import (
    ConsistencyLoss,
    ProgressiveLoss,
    distill_progressively,
    train_consistency,
)
from diffusion_eqx.nn import MLP
from diffusion_eqx.parameterization import EDM, Epsilon, Sample, Velocity, VPrediction
from diffusion_eqx.samplers import (
    ConsistencySampler,
    DDIMSampler,
    UniformGrid,
    sample,
    sample_from,
)
from diffusion_eqx.schedules import DiscreteSchedule, FlowSchedule, cosine_betas, like

MEAN, STD = 0.3, 0.5
SHAPE = (3,)
GRID = UniformGrid()
SCHEDULE = FlowSchedule()


class Known(eqx.Module):
    """A network of Velocity whose predicted x0 is a known function of x_t and t."""

    function: Callable[[Batch, Time], Batch]

    def __call__(self, x: Batch, c_noise: Time, cond: Cond, *, key: PRNGKey | None) -> Batch:
        t = (c_noise + 1) / SCHEDULE.num_timesteps
        c = Velocity().coefficients(SCHEDULE, t)
        x_t = x / like(c.c_in, x)
        return (self.function(x_t, t) - like(c.c_skip, x) * x_t) / like(c.c_out, x)


def teacher():
    return GaussianDenoiser(jnp.full(SHAPE, MEAN), jnp.full(SHAPE, STD), SCHEDULE)


def examples(getkey, count=4096):
    return MEAN + STD * jax.random.normal(getkey(), (count, *SHAPE))


def after_teacher(steps: int, teachers: int):
    """x0 such that one of `steps` student's steps ends where so many of the teacher's do."""

    def function(x_t: Batch, t: Time) -> Batch:
        x, width = x_t, 1.0 / (steps * teachers)
        for number in range(teachers):
            predicted = teacher()(x, t - number * width)
            s = jnp.maximum(t - (number + 1) * width, 0.0)
            alpha, sigma = like(SCHEDULE.alpha(s), x), like(SCHEDULE.sigma(s), x)
            x = alpha * predicted.x0 + sigma * predicted.eps
        s = jnp.maximum(t - 1.0 / steps, 0.0)
        ratio = like(SCHEDULE.sigma(s) / SCHEDULE.sigma(t), x)
        return (x - ratio * x_t) / like(SCHEDULE.alpha(s) - ratio[:, 0] * SCHEDULE.alpha(t), x)

    return Known(function)


@pytest.mark.parametrize("steps", [1, 4])
def test_the_progressive_loss_vanishes_for_two_steps_in_one_and_for_nothing_else(steps, getkey):
    loss = ProgressiveLoss(teacher(), Velocity(), steps, GRID)
    x0, key = examples(getkey), getkey()
    assert float(loss(after_teacher(steps, 2), x0, key=key)) < 1e-9
    for teachers in (1, 3):
        assert float(loss(after_teacher(steps, teachers), x0, key=key)) > 1e-5


def test_a_perfect_student_draws_what_its_teacher_draws(getkey):
    student = Denoiser(after_teacher(4, 2), SCHEDULE, Velocity())
    noise = jax.random.normal(getkey(), (8, *SHAPE))
    few, many = (
        sample_from(DDIMSampler(d, GRID), noise, steps=steps, key=getkey())
        for d, steps in ((student, 4), (teacher(), 8))
    )
    np.testing.assert_allclose(few, many, atol=1e-5)


def end_of_trajectory(x_t: Batch, t: Time) -> Batch:
    """Where the probability flow of N(MEAN, STD²) leads: the same quantile of the data."""
    alpha, sigma = like(SCHEDULE.alpha(t), x_t), like(SCHEDULE.sigma(t), x_t)
    return MEAN + STD * (x_t - alpha * MEAN) / jnp.sqrt(alpha**2 * STD**2 + sigma**2)


def test_the_consistency_loss_vanishes_with_the_teachers_error_for_the_exact_map(getkey):
    """Distilled from exact steps, the flow's end is consistent but for the steps' own error, which two
    halves of a first-order step make a second-order one; a student that is off is off at every grid."""
    x0, key = examples(getkey), getkey()
    exact = Known(end_of_trajectory)
    wrong = Known(lambda x, t: 0.9 * end_of_trajectory(x, t) + 0.1 * x)
    found = {}
    for steps in (10, 20, 40, 80):
        loss = ConsistencyLoss(SCHEDULE, Velocity(), steps, teacher(), GRID)
        found[steps] = (float(loss(exact, x0, key=key)), float(loss(wrong, x0, key=key)))
    assert found[80][0] < 0.2 * found[20][0] < 0.2 * found[10][0]
    assert found[80][1] > 3.0 * found[80][0]


def test_neighbours_without_a_teacher_share_their_noise(getkey):
    """A network that knows the x0 of each example is consistent along every path from it."""
    x0 = examples(getkey, 64)
    loss = ConsistencyLoss(SCHEDULE, Velocity(), 10, None, GRID)
    assert float(loss(Known(lambda x, t: x0), x0, key=getkey())) < 1e-5
    # The same one while there is much noise, and another one's while there is little: not consistent.
    changing = Known(lambda x, t: jnp.where(like(t, x) > 0.5, x0, x0[::-1]))
    assert float(loss(changing, x0, key=getkey())) > 1e-2


def test_a_consistent_map_draws_the_data_in_one_step_and_in_four(getkey):
    student = Denoiser(Known(end_of_trajectory), SCHEDULE, Velocity())
    for steps in (1, 4):
        drawn = np.asarray(
            sample(
                ConsistencySampler(student, GRID), SHAPE, count=20_000, steps=steps, key=getkey()
            )
        )
        assert drawn.mean() == pytest.approx(MEAN, abs=0.02)
        assert drawn.std() == pytest.approx(STD, rel=0.02)


def points() -> ArrayDataset:
    return ArrayDataset(np.random.default_rng(0).normal(0.2, 0.4, (64, 2)).astype(np.float32))


def test_students_are_trained_stage_by_stage_and_their_start_stays_whole(getkey):
    start = Denoiser(MLP(2, width=16, depth=1, key=getkey()), SCHEDULE, Velocity())
    training = DiffusionTrainingConfig(steps=3, warmup_steps=1, batch_size=8)
    stages = list(distill_progressively(start, start, points(), training, stages=(4, 2, 1)))
    assert [steps for steps, _ in stages] == [4, 2, 1]
    distilled = train_consistency(start, points(), training, stages=(2, 4), teacher=start)
    alone = train_consistency(start, points(), training, stages=(2, 4))
    first = np.asarray(start.backbone.linear_out.bias)
    trained = [
        np.asarray(d.backbone.linear_out.bias) for d in (*dict(stages).values(), distilled, alone)
    ]
    for number, bias in enumerate(trained):
        assert all(np.abs(bias - other).max() > 1e-6 for other in [first, *trained[:number]])


def test_what_cannot_be_learnt_is_refused(getkey):
    denoiser = Denoiser(MLP(2, width=16, depth=1, key=getkey()), SCHEDULE, Velocity())
    training = DiffusionTrainingConfig(steps=3, warmup_steps=1, batch_size=8)
    with pytest.raises(ValueError, match="half the steps"):
        next(distill_progressively(denoiser, denoiser, points(), training, stages=(8, 3)))
    with pytest.raises(ValueError, match="at least one"):
        train_consistency(denoiser, points(), training, stages=())
    learned = Denoiser(denoiser.backbone, SCHEDULE, Velocity(), learned_variance=True)
    with pytest.raises(ValueError, match="learn_sigma"):
        train_consistency(learned, points(), training)


@pytest.mark.parametrize("parameterization", [Epsilon(), VPrediction(), Velocity(), EDM()])
def test_consistency_models_keep_clean_examples(parameterization):
    ConsistencyLoss(DiscreteSchedule(cosine_betas(100)), parameterization, 4)
    with pytest.raises(ValueError, match="return x itself at t = 0"):
        ConsistencyLoss(DiscreteSchedule(cosine_betas(100)), Sample(), 4)
