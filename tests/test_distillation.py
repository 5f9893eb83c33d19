"""Few-step students: the losses against what is exact for a Gaussian, and what is refused."""

import logging
import os
import subprocess
import sys
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion_eqx.config import TrainingConfig
from diffusion_eqx.data import ArrayDataset
from diffusion_eqx.denoiser import Denoiser
from diffusion_eqx.distillation import (
    ConsistencyLoss,
    ProgressiveLoss,
    distill_progressively,
    train_consistency,
)
from diffusion_eqx.exact import GaussianDenoiser, GaussianMixtureDenoiser
from diffusion_eqx.guidance import ClassifierFreeGuidance, Guided
from diffusion_eqx.nn import MLP
from diffusion_eqx.parameterizations import (
    EDMPrediction,
    EpsilonPrediction,
    VelocityPrediction,
    VPrediction,
    X0Prediction,
)
from diffusion_eqx.samplers import (
    ConsistencySampler,
    DDIMSampler,
    KarrasGrid,
    TrailingGrid,
    UniformGrid,
    sample,
    sample_from,
)
from diffusion_eqx.schedules import DiscreteSchedule, FlowSchedule, cosine_betas
from diffusion_eqx.training import Callback

# Many programs are compiled here.
pytestmark = pytest.mark.long

MEAN, STD = 0.3, 0.5
SHAPE = (3,)
GRID = UniformGrid()
SCHEDULE = FlowSchedule()


class Known(eqx.Module):
    """A network of VelocityPrediction whose predicted x0 is a known function of x_t and the level."""

    function: Callable

    def __call__(self, x, c_noise, cond, *, key):
        level = SCHEDULE.at((c_noise + 1.0) / SCHEDULE.num_timesteps)
        c = VelocityPrediction().coefficients(SCHEDULE, level)
        c_skip, c_out, c_in = (n[:, None] for n in (c.c_skip, c.c_out, c.c_in))
        x_t = x / c_in
        return (self.function(x_t, level) - c_skip * x_t) / c_out


def student(function=lambda x, level: x) -> Denoiser:
    return Denoiser(Known(function), SCHEDULE, VelocityPrediction())


def teacher():
    return GaussianDenoiser(jnp.full(SHAPE, MEAN), jnp.full(SHAPE, STD), SCHEDULE)


def examples(getkey, count=4096):
    return MEAN + STD * jax.random.normal(getkey(), (count, *SHAPE))


def after_teacher(steps: int, teachers: int):
    """x0 such that one of `steps` student's steps ends where so many of the teacher's do."""

    def later(t, share):
        # Times that should be 0 are so but for rounding.
        s = t.time - share / steps
        return SCHEDULE.at(jnp.where(s < 1e-5, 0.0, s))

    def function(x_t, t):
        x, level = x_t, t
        for number in range(teachers):
            predicted = teacher()(x, level)
            level = later(t, (number + 1) / teachers)
            x = level.noised(predicted.x0, predicted.eps)
        start, end = t.over(x), later(t, 1.0).over(x)
        ratio = end.sigma / start.sigma
        return (x - ratio * x_t) / (end.alpha - ratio * start.alpha)

    return function


@pytest.mark.parametrize("steps", [1, 4])
def test_the_progressive_loss_vanishes_for_two_steps_in_one_and_for_nothing_else(steps, getkey):
    loss = ProgressiveLoss(student(), teacher(), steps, GRID)
    x0, key = examples(getkey), getkey()
    assert float(loss(Known(after_teacher(steps, 2)), x0, key=key)) < 1e-9
    for teachers in (1, 3):
        assert float(loss(Known(after_teacher(steps, teachers)), x0, key=key)) > 1e-5


def test_a_perfect_student_draws_what_its_teacher_draws(getkey):
    noise = jax.random.normal(getkey(), (8, *SHAPE))
    few, many = (
        sample_from(denoiser, DDIMSampler(grid=GRID), noise, steps=steps)
        for denoiser, steps in ((student(after_teacher(4, 2)), 4), (teacher(), 8))
    )
    np.testing.assert_allclose(few, many, atol=1e-5)


def end_of_trajectory(x_t, level):
    """Where the probability flow of N(MEAN, STD²) leads: the same quantile of the data."""
    level = level.over(x_t)
    width = jnp.sqrt(level.alpha**2 * STD**2 + level.sigma**2)
    return MEAN + STD * (x_t - level.alpha * MEAN) / width


def test_the_consistency_loss_vanishes_with_the_teachers_error_for_the_exact_map(getkey):
    """A student that is off is off at every grid.

    Distilled from exact steps, the flow's end is consistent but for the steps' own error, which two halves
    of a first-order step make a second-order one.
    """
    x0, key = examples(getkey), getkey()
    exact = Known(end_of_trajectory)
    wrong = Known(lambda x, level: 0.9 * end_of_trajectory(x, level) + 0.1 * x)
    found = {}
    for steps in (10, 20, 40, 80):
        loss = ConsistencyLoss(student(), steps, teacher(), GRID)
        found[steps] = (float(loss(exact, x0, key=key)), float(loss(wrong, x0, key=key)))
    assert found[80][0] < 0.2 * found[20][0] < 0.2 * found[10][0]
    assert found[80][1] > 3.0 * found[80][0]


def test_neighbours_without_a_teacher_share_their_noise(getkey):
    """A network that knows the x0 of each example is consistent along every path from it."""
    x0 = examples(getkey, 64)
    loss = ConsistencyLoss(student(), 10, None, GRID)
    assert float(loss(Known(lambda x, level: x0), x0, key=getkey())) < 1e-5
    # The same one while there is much noise, and another one's while there is little: not consistent.
    changing = Known(lambda x, level: jnp.where(level.over(x).time > 0.5, x0, x0[::-1]))
    assert float(loss(changing, x0, key=getkey())) > 1e-2


def test_a_consistent_map_draws_the_data_in_one_step_and_in_four(getkey):
    for steps in (1, 4):
        drawn = np.asarray(
            sample(
                student(end_of_trajectory),
                ConsistencySampler(grid=GRID),
                SHAPE,
                count=20_000,
                steps=steps,
                key=getkey(),
            )
        )
        assert drawn.mean() == pytest.approx(MEAN, abs=0.02)
        assert drawn.std() == pytest.approx(STD, rel=0.02)


class Watching(eqx.Module):
    """A network that keeps what it is told."""

    told: list = eqx.field(static=True)

    def __call__(self, x, c_noise, cond, *, key):
        self.told.append((c_noise, cond))
        return 0.0 * x


@eqx.filter_jit
def watched(loss, x0, cond, key):
    """The loss of a network that predicts nothing, and the (c_noise, cond) that it was told."""
    told: list = []
    return loss(Watching(told), x0, cond, key=key), told


@pytest.mark.parametrize("grid", [TrailingGrid(), GRID, KarrasGrid()])
def test_each_step_of_every_grid_is_trained(grid, getkey):
    """One loss of so many examples as steps sees each start once, each example at a level of its own."""
    schedule = DiscreteSchedule(cosine_betas(64))
    given = Denoiser(Watching([]), schedule, VPrediction())
    exact = GaussianDenoiser(jnp.full(SHAPE, MEAN), jnp.full(SHAPE, STD), schedule)
    starts = grid(schedule, 2 * jnp.arange(8), jnp.asarray(16))
    wanted = np.asarray(VPrediction().coefficients(schedule, starts).c_noise)
    for loss in (ProgressiveLoss(given, exact, 8, grid), ConsistencyLoss(given, 8, None, grid)):
        _, told = watched(loss, examples(getkey, 8), None, getkey())
        # Which example has which level changes from step to step.
        np.testing.assert_allclose(np.sort(told[-1][0]), np.sort(wanted), atol=1e-3)


def test_the_condition_and_the_null_reach_teacher_and_student(getkey):
    """Without a condition the student is given the null condition, as in any other training."""
    means = jnp.array([[0.5] * 3, [-0.5] * 3])
    both = GaussianMixtureDenoiser(jnp.full(2, 0.5), means, jnp.full(2, 0.1), SCHEDULE)
    guided = Guided(both, ClassifierFreeGuidance(2.0))
    given = Denoiser(Watching([]), SCHEDULE, VelocityPrediction(), null=2)
    x0, key = examples(getkey, 4), getkey()
    labels = jnp.array([0, 1, 0, 1])
    for loss in (
        ProgressiveLoss(given, guided, 4),
        ConsistencyLoss(given, 4, guided),
        ConsistencyLoss(given, 4),
    ):
        found, told = watched(loss, x0, labels, key)
        assert all(np.array_equal(cond, labels) for _, cond in told)
        other, _ = watched(loss, x0, 1 - labels, key)
        assert (abs(float(other - found)) > 1e-3) == (loss.teacher is not None)
    _, told = watched(loss, x0, None, key)
    assert all(np.array_equal(cond, [2] * 4) for _, cond in told)


def points() -> ArrayDataset:
    return ArrayDataset(np.random.default_rng(0).normal(0.2, 0.4, (64, 2)).astype(np.float32))


def mlp(getkey) -> Denoiser:
    return Denoiser(MLP(2, width=16, depth=1, key=getkey()), SCHEDULE, VelocityPrediction())


CONFIG = TrainingConfig(steps=3, warmup_steps=1, batch_size=8)


class Counting(Callback):
    def __init__(self):
        self.steps = 0

    def step(self, run):
        self.steps += 1


def test_students_are_trained_stage_by_stage_by_one_program(getkey, caplog):
    """And where they start from stays whole."""
    start, counting = mlp(getkey), Counting()
    given = {"callbacks": (counting,)}

    def compiled_once(train):
        caplog.clear()
        with jax.log_compiles(), caplog.at_level(logging.WARNING):
            result = train()
        compiled = [r.message for r in caplog.records if r.message.startswith("Compiling")]
        assert sum("_step" in message for message in compiled) == 1, compiled
        return result

    stages = compiled_once(
        lambda: list(
            distill_progressively(start, start, points(), CONFIG, stages=(4, 2, 1), **given)
        )
    )
    assert [steps for steps, _ in stages] == [4, 2, 1]
    assert counting.steps == 9
    distilled = compiled_once(
        lambda: train_consistency(start, points(), CONFIG, stages=(2, 4), teacher=start, **given)
    )
    alone = compiled_once(
        lambda: train_consistency(start, points(), CONFIG, stages=(2, 4), **given)
    )
    assert counting.steps == 21
    first = np.asarray(start.backbone.linear_out.bias)
    trained = [
        np.asarray(d.backbone.linear_out.bias) for d in (*dict(stages).values(), distilled, alone)
    ]
    for number, bias in enumerate(trained):
        assert all(np.abs(bias - other).max() > 1e-6 for other in [first, *trained[:number]])


DISTILL_ON_TWO_DEVICES = """
import equinox as eqx, jax, numpy as np
from diffusion_eqx import config, data, denoiser, distillation, nn, parameterizations, schedules
assert len(jax.devices()) == 2
schedule = schedules.DiscreteSchedule(schedules.cosine_betas(100))
mlp = nn.MLP(2, width=8, depth=1, key=jax.random.key(0))
trained = denoiser.Denoiser(mlp, schedule, parameterizations.VPrediction())
arrays, rest = eqx.partition(trained, eqx.is_array)
trained = eqx.combine(jax.device_put(arrays, jax.devices()[0]), rest)
points = data.ArrayDataset(np.zeros((16, 2), np.float32))
training = config.TrainingConfig(steps=2, warmup_steps=1, batch_size=8)
for _ in distillation.distill_progressively(trained, trained, points, training, stages=(2, 1)): pass
distillation.train_consistency(trained, points, training, stages=(2, 4), teacher=trained)
"""


@pytest.mark.slow
def test_a_teacher_that_was_trained_here_teaches_on_several_devices():
    """Training leaves a network on one device, where its student's training is split over all."""
    environment = {**os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=2"}
    command = [sys.executable, "-c", DISTILL_ON_TWO_DEVICES]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_what_cannot_be_learnt_is_refused(getkey):
    denoiser = mlp(getkey)
    with pytest.raises(ValueError, match="half the steps"):
        distill_progressively(denoiser, denoiser, points(), CONFIG, stages=(8, 3))
    with pytest.raises(ValueError, match="at least one"):
        train_consistency(denoiser, points(), CONFIG, stages=())
    for call in (
        lambda: distill_progressively(denoiser, denoiser, points(), CONFIG, stages=(1000, 500)),
        lambda: train_consistency(denoiser, points(), CONFIG, stages=(2, 501)),
    ):
        with pytest.raises(ValueError, match=r"needs a teacher of .* between 1 and the 1000"):
            call()
    learned = Denoiser(denoiser.backbone, SCHEDULE, VelocityPrediction(), learned_variance=True)
    elsewhere = Denoiser(
        denoiser.backbone, DiscreteSchedule(cosine_betas(1000)), VelocityPrediction()
    )
    for other, message in ((learned, "learn_sigma"), (elsewhere, "different noise schedules")):
        for call in (
            lambda other=other: ProgressiveLoss(other, denoiser, 4),
            lambda other=other: ConsistencyLoss(other, 4, denoiser),
            lambda other=other: train_consistency(other, points(), CONFIG, teacher=denoiser),
            lambda other=other: distill_progressively(
                denoiser, other, points(), CONFIG, stages=(2, 1)
            ),
        ):
            with pytest.raises(ValueError, match=message):
                call()


@pytest.mark.parametrize(
    "parameterization",
    [EpsilonPrediction(), VPrediction(), VelocityPrediction(), EDMPrediction()],
)
def test_consistency_models_keep_clean_examples(parameterization):
    schedule = DiscreteSchedule(cosine_betas(100))
    ConsistencyLoss(Denoiser(Known(lambda x, level: x), schedule, parameterization), 4)
    with pytest.raises(ValueError, match="return x itself at t = 0"):
        ConsistencyLoss(Denoiser(Known(lambda x, level: x), schedule, X0Prediction()), 4)
