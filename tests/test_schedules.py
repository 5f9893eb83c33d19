"""Schedules against their formulas; the laws that all of them keep are in test_laws.py."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion_eqx.schedules import (
    GREATEST_LOG_SNR,
    LEAST_LOG_SNR,
    AbstractSchedule,
    DiscreteSchedule,
    EDMSchedule,
    FlowSchedule,
    VESchedule,
    VPSchedule,
    linear_betas,
    rescale_zero_terminal_snr,
    sigmoid_betas,
)
from tests.catalogue import BETAS, SCHEDULES

DISCRETE = [name for name in BETAS]
FINITE = [name for name in BETAS if not name.startswith("zero")]


@pytest.mark.parametrize("name", DISCRETE)
def test_alpha_bar_is_the_product_of_one_minus_beta(name):
    level = SCHEDULES[name].at_timestep(jnp.arange(1000))
    expected = np.cumprod(1.0 - BETAS[name])
    np.testing.assert_allclose(level.alpha**2, expected, rtol=2e-5, atol=1e-12)


@pytest.mark.parametrize("name", DISCRETE)
def test_variance_is_preserved_between_nodes_too(name):
    level = SCHEDULES[name].at(jnp.linspace(0.0, 1.0, 777))
    np.testing.assert_allclose(level.alpha**2 + level.sigma**2, 1.0, atol=1e-6)
    assert np.all(np.diff(level.log_snr) < 0)


@pytest.mark.parametrize("name", SCHEDULES)
def test_time_zero_is_clean(name):
    level = SCHEDULES[name].at(0.0)
    assert level.alpha == 1.0
    assert level.sigma == 0.0
    assert level.log_snr == GREATEST_LOG_SNR
    assert level.clean


@pytest.mark.parametrize("total", [1, 7, 1000, 4000])
def test_integer_timesteps_survive_the_way_through_time_exactly(total):
    schedule = DiscreteSchedule(linear_betas(total, 1e-4, 0.02))
    timesteps = jnp.arange(total)
    np.testing.assert_array_equal(schedule.timestep_of(schedule.at_timestep(timesteps)), timesteps)


def test_cosine_matches_its_closed_form_where_it_is_not_capped():
    t = np.arange(1, 990) / 1000
    f = np.cos((t + 0.008) / 1.008 * np.pi / 2) ** 2 / np.cos(0.008 / 1.008 * np.pi / 2) ** 2
    level = SCHEDULES["cosine"].at(jnp.asarray(t, jnp.float32))
    np.testing.assert_allclose(level.alpha**2, f, rtol=1e-4)


def test_sigmoid_betas_are_a_logistic_curve():
    """By tanh, of which the logistic function is a scaled copy; symmetric about the middle."""
    betas = sigmoid_betas(200, 1e-3, 0.05, steepness=4.0)
    x = np.linspace(-4.0, 4.0, 200)
    np.testing.assert_allclose(betas, 1e-3 + 0.049 * 0.5 * (1.0 + np.tanh(0.5 * x)), rtol=1e-12)
    np.testing.assert_allclose(betas + betas[::-1], 0.051, rtol=1e-12)
    assert np.all(np.diff(betas) > 0)
    # Not a straight line: slow at both ends, fast in the middle.
    assert betas[100] - betas[99] > 10 * (betas[1] - betas[0])
    # At steepness 0 all betas are the mean.
    np.testing.assert_allclose(sigmoid_betas(9, 0.1, 0.3, steepness=0.0), 0.2)


@pytest.mark.parametrize("name", ["linear", "cosine", "sigmoid"])
def test_zero_terminal_snr_is_its_papers_algorithm(name):
    """Lin et al.

    (2024, algorithm 1), written out: shift sqrt(alpha_bar) to end at 0, scale its start back.
    """
    root = np.sqrt(np.cumprod(1.0 - BETAS[name]))
    expected = (root - root[-1]) * (root[0] / (root[0] - root[-1]))
    betas = rescale_zero_terminal_snr(BETAS[name])
    np.testing.assert_allclose(np.sqrt(np.cumprod(1.0 - betas)), expected, atol=1e-12)
    assert betas[-1] == 1.0
    schedule = DiscreteSchedule(betas)
    end = schedule.at(1.0)
    assert (float(end.alpha), float(end.sigma)) == (0.0, 1.0)
    assert end.log_snr == LEAST_LOG_SNR
    # The first node stays, and the others have less signal than before.
    before = DiscreteSchedule(BETAS[name])
    first = 1.0 / 1000
    np.testing.assert_allclose(schedule.at(first).alpha, before.at(first).alpha, rtol=1e-6)
    assert schedule.at(0.9).alpha < before.at(0.9).alpha
    # alpha_bar itself falls linearly over the last interval.
    nodes = schedule.at(jnp.asarray([0.999, 0.9995, 1.0]))
    np.testing.assert_allclose(nodes.alpha[1] ** 2, 0.5 * nodes.alpha[0] ** 2, rtol=1e-3)
    with pytest.raises(ValueError, match="at least two"):
        rescale_zero_terminal_snr(np.array([0.5]))


def test_edm_levels_are_its_papers():
    """Karras et al. (2022, eq. 5): sigma_i = (max^(1/rho) + i/(N − 1)·(min^(1/rho) − max^(1/rho)))^rho."""
    schedule = EDMSchedule(0.01, 50.0, 5.0, num_timesteps=18)
    i = np.arange(18)
    expected = (50**0.2 + i / 17 * (0.01**0.2 - 50**0.2)) ** 5
    level = schedule.at_timestep(jnp.arange(18)[::-1])
    np.testing.assert_allclose(level.sigma, expected, rtol=1e-5)
    np.testing.assert_array_equal(level.alpha, 1.0)
    np.testing.assert_allclose(schedule.at(0.5 / 18).sigma, 0.005, rtol=1e-5)
    # rho = 1 is linear in sigma.
    linear = EDMSchedule(1.0, 18.0, 1.0, num_timesteps=18).at_timestep(jnp.arange(18))
    np.testing.assert_allclose(linear.sigma, 1.0 + np.arange(18), rtol=1e-5)


def test_ve_levels_are_a_geometric_sequence():
    level = VESchedule(0.01, 50.0, num_timesteps=10).at_timestep(jnp.arange(10))
    np.testing.assert_allclose(level.sigma, np.geomspace(0.01, 50.0, 10), rtol=1e-5)


def test_vp_is_the_integral_of_its_beta():
    t = np.linspace(0.01, 1.0, 50)
    integral = 0.1 * t + 0.5 * 19.9 * t**2
    level = VPSchedule().at(jnp.asarray(t, jnp.float32))
    np.testing.assert_allclose(level.alpha, np.exp(-0.5 * integral), rtol=2e-5)
    np.testing.assert_allclose(level.sigma, np.sqrt(-np.expm1(-integral)), rtol=2e-5)


@pytest.mark.parametrize("name", ["linear", "vp", "ve", "edm", "flow"])
def test_drift_and_diffusion_are_those_of_the_marginals(name):
    """d(alpha)/dt = f·alpha and d(sigma²)/dt = 2·f·sigma² + g², by differences."""
    schedule = SCHEDULES[name]
    t, h = 0.4321, 1e-3
    low, here, high = (schedule.at(x) for x in (t - h, t, t + h))
    time = jnp.asarray(t)
    f, g2 = float(schedule.drift(time)), float(schedule.diffusion_squared(time))
    rate = float(high.alpha - low.alpha) / (2 * h)
    assert f * float(here.alpha) == pytest.approx(rate, rel=3e-2, abs=1e-3)
    rate = float(high.sigma**2 - low.sigma**2) / (2 * h)
    assert 2 * f * float(here.sigma) ** 2 + g2 == pytest.approx(rate, rel=3e-2)


def test_a_level_raised_is_the_forward_process(getkey):
    """From any cleaner level up: alpha and the variance of noise are those of the level itself."""
    schedule = SCHEDULES["vp"]
    below, level = schedule.at(0.3), schedule.at(0.6)
    shape = (100_000, 1)
    x0 = jnp.full(shape, 0.7)
    x = below.noised(x0, jax.random.normal(getkey(), shape))
    raised = level.raised(x, below, jax.random.normal(getkey(), shape))
    assert float(raised.mean()) == pytest.approx(0.7 * float(level.alpha), abs=0.01)
    assert float(raised.std()) == pytest.approx(float(level.sigma), rel=0.01)
    np.testing.assert_array_equal(below.raised(x, below, x), x)


def test_a_level_at_a_ratio_has_it():
    for name in ("linear", "ve", "flow"):
        level = SCHEDULES[name].at_ratio(0.8)
        assert float(level.sigma / level.alpha) == pytest.approx(0.8, rel=1e-5)


@pytest.mark.parametrize("betas", [[], [0.0], [1.0, 0.5], [1.1], [[0.1]], [0.1, -0.1], [np.nan]])
def test_impossible_betas_are_refused(betas):
    with pytest.raises(ValueError, match="betas must be"):
        DiscreteSchedule(np.asarray(betas))


@pytest.mark.parametrize(
    "make",
    [
        lambda: VPSchedule(20.0, 0.1),
        lambda: VPSchedule(0.0, 20.0),
        lambda: VESchedule(2.0, 1.0),
        lambda: EDMSchedule(0.0, 80.0),
    ],
)
def test_impossible_numbers_are_refused(make):
    with pytest.raises(ValueError, match="needs 0 <"):
        make()
    with pytest.raises(ValueError, match="num_timesteps must be"):
        FlowSchedule(num_timesteps=0)
    with pytest.raises(ValueError, match="at least two"):
        VESchedule(num_timesteps=1)


class Custom(AbstractSchedule):
    """What a user writes: alpha and sigma of a cosine, with one fault or none."""

    scale: float = 1.0
    floor: float = 0.0
    turn: float = 0.5

    def alpha(self, t):
        return self.scale * jnp.cos(self.turn * jnp.pi * t)

    def sigma(self, t):
        return self.floor + jnp.sin(0.5 * jnp.pi * t)


def test_a_schedule_of_ones_own_works_at_both_ends():
    """A plain cosine is −4e-8 at t = 1, not 0."""
    schedule = Custom()
    for level in (schedule.at(0.0), schedule.at(1.0), schedule.at_log_snr(-1e3)):
        for value in (level.time, level.alpha, level.sigma, level.log_snr):
            assert np.isfinite(value)
        assert level.alpha >= 0.0


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ({"scale": 0.9}, r"begin clean.*alpha\(0\) = 0.9"),
        ({"floor": 0.01}, r"begin clean.*sigma\(0\) = 0.01"),
        ({"turn": 0.7}, "alpha >= 0"),
        ({"scale": float("nan")}, "begin clean"),
    ],
)
def test_a_schedule_that_breaks_the_contract_is_refused(fault, message):
    with pytest.raises(ValueError, match=message):
        Custom(**fault)


class Rising(Custom):
    def sigma(self, t):
        return jnp.sin(0.5 * jnp.pi * t) * (1.0 - 0.6 * jnp.exp(-(((t - 0.5) / 0.1) ** 2)))


def test_a_log_snr_that_rises_is_refused():
    with pytest.raises(ValueError, match=r"falls strictly.*near t = 0\.[345]"):
        Rising()


def test_times_and_timesteps_cannot_be_taken_for_one_another():
    schedule = SCHEDULES["linear"]
    with pytest.raises(ValueError, match=r"real number in \[0, 1\].*at_timestep"):
        schedule.at(3)
    with pytest.raises(ValueError, match=r"integer in 0 … 999.*ask the schedule for its level"):
        schedule.at_timestep(0.5)
    for call, wrong in ((schedule.at, 1.5), (schedule.at, -0.1), (schedule.at, float("nan"))):
        with pytest.raises(ValueError, match="a time lies in"):
            call(wrong)
    for wrong in (-1, 1000):
        with pytest.raises(ValueError, match="a timestep lies in"):
            schedule.at_timestep(wrong)
