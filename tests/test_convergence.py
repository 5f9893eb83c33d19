"""Each sampler converges to the exact solution at the order that theory promises, and no twin does."""

import dataclasses

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion_eqx.exact import GaussianDenoiser
from diffusion_eqx.samplers import (
    AbstractSampler,
    BrownianNoise,
    DDIMSampler,
    DDPMSampler,
    DEISSampler,
    DiffraxAdaptiveSampler,
    DiffraxODESampler,
    DiffraxSDESampler,
    DPMSolverPlusPlus2SSampler,
    DPMSolverPlusPlusSampler,
    GivenGrid,
    HeunSampler,
    KarrasGrid,
    LMSSampler,
    LogSNRGrid,
    PredictorCorrectorSampler,
    State,
    TrailingGrid,
    UniPCSampler,
    draw,
    find_sampler,
    image_keys,
    sample,
    sample_between,
    sample_from,
)
from diffusion_eqx.schedules import FlowSchedule, VESchedule, VPSchedule
from diffusion_eqx.testing import AnySchedule, exact_flow, three_gaussians, true_samples
from tests.catalogue import SCHEDULES
from tests.choices import UnitNoise, unit
from tests.mixture_oracle import energy_distance

# Many programs are compiled here.
pytestmark = pytest.mark.long

KEY = jax.random.key(1)


class Blunted(AbstractSampler):
    """A twin with a wrong coefficient: a `share` of each step is Euler's, or of Euler's goes astray.

    With a share of 0 it is the sampler itself, so that both are one program.
    """

    sampler: AbstractSampler
    share: float = 0.2

    def init(self, denoise, x, t, s):
        return self.sampler.init(denoise, x, t, s)

    def step(self, denoise, state, t, s) -> State:
        right = self.sampler.step(denoise, state, t, s)
        x0, eps = denoise(state.x, t)
        wrong = s.noised(x0, eps)
        if isinstance(self.sampler, DDIMSampler):
            # sigma of the time before in place of the one after, for a part of the way.
            wrong = jnp.where(s.clean, right.x, right.x + (t.sigma - s.sigma) * eps)
        return dataclasses.replace(right, x=(1.0 - self.share) * right.x + self.share * wrong)


# Deterministic methods: in double precision, from noise of 8 to noise so small that its end is no matter.

SCHEDULE = VESchedule(1e-6, 8.0)
GRID = LogSNRGrid()
NOISE = np.random.default_rng(0).standard_normal((32, 2))
LONG, SHORT, FEW = (1000, 2000, 4000), (400, 800, 1600), (25, 50, 100)
# Multistep methods of order 3 and more begin with steps of order 1 and 2. What these cost is of
# second order, small at so much noise, and seen only by far more steps than these.
START = (50, 100, 200)
# (method, order, numbers of steps, greatest error at the last of them)
METHODS = {
    "ddim": (DDIMSampler(grid=GRID), 1, LONG, 1e-2),
    "heun": (HeunSampler(grid=GRID), 2, LONG, 1e-5),
    "heun-karras": (HeunSampler(grid=KarrasGrid()), 2, LONG, 1e-5),
    "2s": (DPMSolverPlusPlus2SSampler(), 2, LONG, 1e-5),
    "2m": (DPMSolverPlusPlusSampler(), 2, LONG, 1e-5),
    "3m": (DPMSolverPlusPlusSampler(order=3), 3, START, 2e-5),
    "unipc-2": (UniPCSampler(grid=GRID), 3, LONG, 2e-9),
    "unipc-3": (UniPCSampler(grid=GRID, order=3), 4, SHORT, 1e-9),
    "deis-2": (DEISSampler(order=2), 2, LONG, 1e-5),
    "deis-3": (DEISSampler(order=3), 3, START, 2e-5),
    "lms-2": (LMSSampler(grid=KarrasGrid(), order=2), 2, LONG, 1e-5),
    "lms-3": (LMSSampler(grid=KarrasGrid(), order=3), 3, LONG, 2e-8),
    "lms-4": (LMSSampler(grid=KarrasGrid()), 4, START, 4e-6),
    "midpoint": (DiffraxODESampler(diffrax.Midpoint()), 2, LONG, 1e-5),
    "diffrax-heun": (DiffraxODESampler(diffrax.Heun()), 2, LONG, 1e-5),
    # These reuse the last stage of a step as the first of the next.
    "bosh3": (DiffraxODESampler(diffrax.Bosh3()), 3, LONG, 2e-9),
    "tsit5": (DiffraxODESampler(diffrax.Tsit5()), 5, START, 1e-10),
    "dopri5": (DiffraxODESampler(diffrax.Dopri5()), 5, START, 1e-10),
}


@pytest.fixture(scope="module")
def expected():
    ratio = float(SCHEDULE.at(1.0).sigma)
    return exact_flow(NOISE * ratio, ratio)


def order_of(errors, steps) -> float:
    return -np.polyfit(np.log(steps), np.log(errors), 1)[0]


def errors_of(sampler, steps, expected) -> np.ndarray:
    found = []
    for n in steps:
        x = sample_from(
            three_gaussians(SCHEDULE), sampler, jnp.asarray(NOISE), steps=jnp.asarray(n)
        )
        assert x.dtype == jnp.float64
        found.append(np.sqrt(np.mean((np.asarray(x) - expected) ** 2)))
    return np.array(found)


@pytest.mark.parametrize("name", METHODS)
def test_order_of_convergence_and_a_wrong_coefficient_loses_it(name, expected):
    sampler, order, steps, least = METHODS[name]

    class Twin(Blunted):
        stochastic = False

    with jax.enable_x64(True):
        right = errors_of(Twin(sampler, 0.0, grid=sampler.grid), steps, expected)
        wrong = errors_of(Twin(sampler, 0.2, grid=sampler.grid), steps, expected)
    assert order - 0.4 < order_of(right, steps) < order + 1.3, (order_of(right, steps), right)
    assert right[-1] < least, right
    assert order_of(wrong, steps) < order - 0.4, (order_of(wrong, steps), wrong)


def test_the_published_third_order_is_a_second_one(expected):
    """Reference implementations lack a factor 2 in 3M; the oracle tells."""
    with jax.enable_x64(True):
        sampler = DPMSolverPlusPlusSampler(order=3, published=True)
        published = errors_of(sampler, START, expected)
        exact = errors_of(DPMSolverPlusPlusSampler(order=3), START, expected)
    assert order_of(published, START) < 2.3 < 2.7 < order_of(exact, START)
    assert published[-1] > 3 * exact[-1]


@pytest.mark.parametrize(
    "name", ["ddim", "heun", "2s", "3m", "unipc-2", "deis-3", "lms-2", "diffrax-heun"]
)
@pytest.mark.parametrize(
    "schedule",
    [VPSchedule(num_timesteps=10**5), FlowSchedule(num_timesteps=10**5)],
    ids=["vp", "flow"],
)
def test_every_schedule_leads_to_the_exact_solution(name, schedule):
    """With VP noise, and from a start without any signal: the reference there is a Gaussian's."""
    sampler, *_ = METHODS[name]
    denoiser = GaussianDenoiser(jnp.array([0.3, -0.2]), jnp.array([0.3, 0.2]), schedule)
    noise = jnp.asarray(NOISE, jnp.float32)
    expected = gaussian_flow(denoiser, noise)
    coarse, fine = (
        float(jnp.abs(sample_from(denoiser, sampler, noise, steps=jnp.asarray(n)) - expected).max())
        for n in (25, 100)
    )
    assert fine < 0.35 * coarse
    assert fine < 0.04


def gaussian_flow(denoiser, noise, end=None):
    """Where the probability flow takes noise from t = 1, for a Gaussian: to data, or to the level `end`."""
    start = denoiser.schedule.at(1.0)
    end = denoiser.schedule.at(0.0) if end is None else end

    def marginal(level):
        return jnp.sqrt(level.alpha**2 * denoiser.std**2 + level.sigma**2)

    offset = start.sigma * noise - (start.alpha * denoiser.mean)[None]
    return (end.alpha * denoiser.mean)[None] + (marginal(end) / marginal(start))[None] * offset


def stopped_flow(denoiser, noise):
    """As adaptive solvers end: the flow to the first timestep, and the mean of x0 from there."""
    last = denoiser.schedule.at_timestep(0)
    return denoiser(gaussian_flow(denoiser, noise, last), last).x0


# Adaptive solvers.


@pytest.mark.parametrize("solver", [diffrax.Tsit5(), diffrax.Dopri5()], ids=["tsit5", "dopri5"])
def test_adaptive_solvers_meet_their_tolerance_on_every_schedule(solver):
    """The flow of N(0.3, 0.5²), whose end is known.

    At most ten times the tolerance, which is that of a step.
    """
    tolerances = np.array([1e-2, 1e-3, 1e-4])
    schedules = tuple(SCHEDULES.values())
    noise = jnp.asarray(NOISE, jnp.float32)

    @jax.jit
    def error(which, tolerance):
        schedule = AnySchedule(schedules, which)
        denoiser = GaussianDenoiser(jnp.full(2, 0.3), jnp.full(2, 0.5), schedule)
        sampler = DiffraxAdaptiveSampler(solver, tolerance, tolerance)
        found = sample_from(denoiser, sampler, noise, steps=jnp.asarray(400))
        return jnp.abs(found - stopped_flow(denoiser, noise)).max()

    pairs = [(s, t) for s in range(len(schedules)) for t in range(len(tolerances))]
    which, index = (jnp.asarray(column) for column in zip(*pairs, strict=True))
    allowed = jnp.asarray(tolerances, jnp.float32)[index]
    found = np.asarray(jax.vmap(error)(which, allowed)).reshape(len(schedules), 3) / tolerances
    for name, row in zip(SCHEDULES, found, strict=True):
        assert (row <= 10.0).all(), f"{name}: errors are {row} tolerances"


@pytest.mark.parametrize("solver", [diffrax.Tsit5(), diffrax.Dopri5()], ids=["tsit5", "dopri5"])
def test_adaptive_solvers_meet_their_tolerance_on_a_mixture(solver):
    """There the flow itself magnifies errors: points near a watershed go to one Gaussian or another."""
    schedule = VESchedule(0.002, 8.0)
    expected = exact_flow(NOISE * 8.0, 8.0)
    for tolerance in (1e-2, 1e-3, 1e-4):
        sampler = DiffraxAdaptiveSampler(solver, tolerance, tolerance)
        x = sample_from(
            three_gaussians(schedule),
            sampler,
            jnp.asarray(NOISE, jnp.float32),
            steps=jnp.asarray(200),
        )
        error = np.sqrt(np.mean((np.asarray(x) - expected) ** 2))
        assert error < 10 * tolerance, (tolerance, error)


def test_an_adaptive_solver_that_does_not_arrive_says_so():
    sampler = DiffraxAdaptiveSampler(diffrax.Tsit5(), 1e-5, 1e-5)
    with pytest.raises(ArithmeticError, match=r"32 of 32 samples did not arrive.*allow more steps"):
        sample_from(three_gaussians(SCHEDULE), sampler, jnp.asarray(NOISE, jnp.float32), steps=4)


class Louder(BrownianNoise):
    """A path that moves a third too far."""

    def at(self, keys, place, shape):
        return 1.33 * super().at(keys, place, shape)


def test_the_adaptive_sde_arrives_and_has_the_right_distribution():
    """With the catalogue's own tolerances, and steps of which some examples need more than others."""
    sampler = find_sampler("adaptive-sde:Heun")
    count = 1500
    denoiser = three_gaussians(SCHEDULES["vp"])
    drawn = sample(denoiser, sampler, (2,), count=count, steps=400, key=KEY)
    assert bool(jnp.isfinite(drawn).all())
    among_true = [
        energy_distance(true_samples(count, 2 * i), true_samples(count, 2 * i + 1))
        for i in range(12)
    ]
    threshold = np.mean(among_true) + 4 * np.std(among_true)
    truth = true_samples(100_000, 99)
    assert energy_distance(np.asarray(drawn), truth) < threshold
    louder = dataclasses.replace(sampler, path=Louder())
    wrong = sample(denoiser, louder, (2,), count=count, steps=400, key=KEY)
    assert energy_distance(np.asarray(wrong), truth) > threshold


# Stochastic methods: the error of the standard deviation, exact by the answers to single noises.

MOST = 160
SIZE = 2 * MOST + 2
# The weak order that each shows.
STOCHASTIC = {
    "ddpm": (DDPMSampler(grid=GRID), 1),
    "ddpm-large": (DDPMSampler(grid=GRID, variance="large"), 1),
    "ddim-eta-1": (DDIMSampler(grid=GRID, eta=1.0), 1),
    "ddim-eta-half": (DDIMSampler(grid=GRID, eta=0.5), 1),
    "sde-2m": (DPMSolverPlusPlusSampler(eta=1.0), 2),
    # Of third order but for its first steps, whose error shows.
    "sde-3m": (DPMSolverPlusPlusSampler(eta=1.0, order=3), 2),
    "euler-maruyama": (DiffraxSDESampler(), 1),
    "sde-heun": (DiffraxSDESampler(diffrax.Heun()), 2),
    "sde-shark": (DiffraxSDESampler(diffrax.ShARK()), 2),
}


def deviation_errors(sampler, steps, temperature=1.0) -> np.ndarray:
    """How far the deviation of samples of N(0.3, 0.4²) is off, in double precision."""
    made = dataclasses.replace(sampler, noise=UnitNoise(), temperature=temperature)
    # A first timestep so near 0 that the end is no matter.
    schedule = VPSchedule(num_timesteps=10**6)
    errors = []
    for n in steps:
        denoiser = GaussianDenoiser(jnp.full(SIZE, 0.3), jnp.full(SIZE, 0.4), schedule)
        noise = unit(jnp.asarray(0), jnp.zeros((1, SIZE)))
        x = np.asarray(sample_from(denoiser, made, noise, steps=jnp.asarray(n), key=KEY))[0]
        start = schedule.at(1.0)
        spread = np.sqrt(np.sum((x[:-1] - x[-1]) ** 2))
        # What is left of the signal at t = 1 is 2e-5 of it.
        expected = (
            0.4
            * float(start.sigma)
            / np.sqrt(float(start.alpha * 0.4) ** 2 + float(start.sigma) ** 2)
        )
        errors.append(abs(spread - expected))
    return np.array(errors)


@pytest.fixture
def unit_second_draws(monkeypatch):
    monkeypatch.setattr(
        State, "second_draw", lambda state: unit(state.column(state.index + 1 + MOST), state.x)
    )


@pytest.mark.parametrize("name", STOCHASTIC)
def test_weak_order_of_stochastic_samplers(name, unit_second_draws):
    sampler, order = STOCHASTIC[name]
    steps = (40, 80, 160)
    with jax.enable_x64(True):
        right = deviation_errors(sampler, steps)
        wrong = [deviation_errors(sampler, steps, temperature=t) for t in (0.9, 1.1)]
    assert order_of(right, steps) > order - 0.35, (order_of(right, steps), right)
    # Of twins whose noise is a tenth too weak or too strong, one errs as the method does, and its spread
    # stays wrong; the errors of the other may cancel.
    assert min(order_of(errors, steps) for errors in wrong) < order - 0.35, wrong
    assert max(errors[-1] for errors in wrong) > 1e-2


def moments_error(sampler, steps, count=200_000):
    denoiser = GaussianDenoiser(jnp.array([0.3]), jnp.array([0.4]), VPSchedule())
    noise = draw(image_keys(jax.random.key(3), count), 0, (1,))
    x = np.asarray(sample_from(denoiser, sampler, noise, steps=jnp.asarray(steps), key=KEY))
    return abs(x.mean() - 0.3), abs(x.std() - 0.4)


def test_moments_with_churn():
    mean, std = moments_error(HeunSampler(churn=20.0, grid=GRID), 200)
    assert mean < 5e-3
    assert std < 8e-3


def test_the_corrector_corrects():
    """Examples twice too large, on a walk that hardly moves.

    Langevin's steps bring them back, the others do not.
    """
    schedule = VPSchedule()
    times = np.append(np.linspace(0.5, 0.49, 81), 0.0)
    grid = GivenGrid(tuple(times))
    denoiser = GaussianDenoiser(jnp.array([0.3]), jnp.array([0.4]), schedule)
    begin, end = schedule.at(0.5), schedule.at(0.49)
    size = [float(jnp.sqrt(level.alpha**2 * 0.16 + level.sigma**2)) for level in (begin, end)]
    x = 0.3 * begin.alpha + 2.0 * size[0] * draw(image_keys(jax.random.key(3), 20_000), 0, (1,))

    def deviation(sampler):
        found = sample_between(denoiser, sampler, x, begin=0, end=80, steps=81, key=KEY)
        return float(found.std()) / size[1]

    # Steps of a finite length leave a little too much.
    assert deviation(PredictorCorrectorSampler(grid=grid)) == pytest.approx(1.01, abs=0.03)
    assert deviation(DDIMSampler(1.0, grid=grid)) > 1.8
    # And whole samples are right.
    whole = moments_error(PredictorCorrectorSampler(grid=TrailingGrid()), 300, 40_000)
    assert max(whole) < 2e-2
