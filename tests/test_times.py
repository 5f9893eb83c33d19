"""Training times: each distribution has the density that it states, on every schedule."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from diffusion_eqx.losses import (
    CosineTimes,
    Draws,
    Importance,
    LogitNormalTimes,
    LogNormalTimes,
    ModeTimes,
    ShiftedTimes,
    UniformTimes,
)
from tests.catalogue import SCHEDULES

BATCH = 512
FLOW = SCHEDULES["flow"]
CONTINUOUS = {name: s for name, s in SCHEDULES.items() if not s.discrete}


def mode_cdf(t, scale):
    u = np.linspace(0.0, 1.0, 200_001)
    return np.interp(t, u - scale * (np.sin(0.5 * np.pi * u) ** 2 - u), u)


# The cumulative distribution of each, in float64 and by scipy, as a function of time t and s = sigma/alpha.
TIMES = {
    "uniform": (UniformTimes(), lambda t, s: t),
    "logit-normal": (
        LogitNormalTimes(0.4, 0.8),
        lambda t, s: stats.norm.cdf((np.log(t) - np.log1p(-t)) / 0.8 - 0.5),
    ),
    "mode": (ModeTimes(1.29), lambda t, s: mode_cdf(t, 1.29)),
    "mode with a dip": (ModeTimes(-0.7), lambda t, s: mode_cdf(t, -0.7)),
    "log-normal": (LogNormalTimes(), lambda t, s: stats.norm.cdf(np.log(s), -1.2, 1.2)),
    "cosine": (CosineTimes(), lambda t, s: np.arctan(s) * 2 / np.pi),
    "shifted log-normal": (
        ShiftedTimes(LogNormalTimes(0.0, 1.0), 3.0),
        lambda t, s: stats.norm.cdf(np.log(s / 3.0)),
    ),
}


def batch_of(key=0, count=BATCH) -> np.ndarray:
    return Draws.of(jax.random.key(key), count).uniforms()


def test_uniform_numbers_have_one_number_in_each_stratum():
    for key in range(3):
        uniforms = np.asarray(batch_of(key))
        assert sorted(np.floor(uniforms * BATCH)) == list(range(BATCH))
        # The strata are dealt out: the first rows are not the lowest.
        assert 0.3 < uniforms[: BATCH // 4].mean() < 0.7
    assert 0.0 < batch_of().min() < batch_of().max() < 1.0


def test_the_offset_is_uniform():
    offsets = [float(batch_of(key, 4).min()) * 4 for key in range(400)]
    assert stats.kstest(offsets, "uniform").pvalue > 1e-3


@pytest.mark.parametrize("schedule", CONTINUOUS)
@pytest.mark.parametrize("name", TIMES)
def test_a_batch_has_the_stated_density(name, schedule):
    """The greatest distance of two distribution functions is 1/B for stratified numbers, for independent
    ones about 1/sqrt(B): stronger than a Kolmogorov–Smirnov test."""
    times, cdf = TIMES[name]
    schedule = CONTINUOUS[schedule]
    level = times(schedule, batch_of())
    first = schedule.at(1.0 / schedule.num_timesteps)
    last = schedule.at(1.0)

    def exact(level):
        t = np.asarray(level.time, np.float64)
        with np.errstate(divide="ignore"):
            return cdf(t, np.exp(-0.5 * np.asarray(level.log_snr, np.float64)))

    low, high = exact(first), exact(last)
    assert high - low > 0.02
    found = np.sort((exact(level) - low) / (high - low))
    ranks = np.arange(BATCH) / BATCH
    distance = max(np.abs(found - ranks).max(), np.abs(found - ranks - 1.0 / BATCH).max())
    assert distance <= 1.0 / BATCH + 2e-4
    assert float(level.time.min()) >= 1.0 / schedule.num_timesteps
    assert float(level.time.max()) <= 1.0


@pytest.mark.parametrize("name", TIMES)
def test_the_cdf_is_the_inverse_of_the_quantile(name):
    times = TIMES[name][0]
    u = jnp.linspace(0.02, 0.98, 97)
    for schedule in (FLOW, SCHEDULES["vp"]):
        t = times.quantile(schedule, u)
        inside = (t > 1e-3) & (t < 0.999)
        assert int(inside.sum()) > 20
        np.testing.assert_allclose(times.cdf(schedule, t)[inside], u[inside], atol=2e-4)


def test_logit_normal_is_log_normal_on_a_flow():
    u = batch_of()
    one = LogitNormalTimes(0.3, 0.9)(FLOW, u).time
    np.testing.assert_allclose(one, LogNormalTimes(0.3, 0.9)(FLOW, u).time, rtol=1e-5)


def test_a_shift_on_a_flow_is_its_formula():
    """t' = shift·t/(1 + (shift − 1)·t), and a shift of 1 changes nothing."""
    u = batch_of()
    t = np.asarray(UniformTimes().quantile(FLOW, u))
    shifted = ShiftedTimes(UniformTimes(), 3.0).quantile(FLOW, u)
    np.testing.assert_allclose(shifted, 3.0 * t / (1.0 + 2.0 * t), rtol=1e-5)
    np.testing.assert_allclose(ShiftedTimes(UniformTimes(), 1.0).quantile(FLOW, u), t, rtol=1e-5)


@pytest.mark.parametrize("name", TIMES)
def test_a_table_is_trained_at_its_timesteps(name):
    """And each timestep as often as the distribution says that it is."""
    schedule, times = SCHEDULES["linear"], TIMES[name][0]
    level = times(schedule, batch_of(count=20_000))
    real = np.asarray(schedule.timestep_of(level))
    np.testing.assert_array_equal(real, np.round(real))
    counts = np.bincount(real.astype(int), minlength=schedule.num_timesteps)
    every = schedule.at_timestep(jnp.arange(schedule.num_timesteps))
    share = np.asarray(times.share(schedule, every), np.float64)
    assert share.sum() == pytest.approx(1.0, abs=1e-3)
    np.testing.assert_allclose(np.cumsum(counts) / 20_000, np.cumsum(share), atol=1.5e-3)


@pytest.mark.parametrize("schedule", ["flow", "vp", "linear"])
@pytest.mark.parametrize("name", ["uniform", "log-normal", "cosine", "mode"])
def test_the_span_of_log_snr_makes_an_average_over_it(name, schedule):
    """The mean of f·|d log_snr/du| over a batch is the integral of f over the log-SNR."""
    schedule, times = SCHEDULES[schedule], TIMES[name][0]
    u = batch_of(count=50_000)
    level = times(schedule, u, discrete=False)
    span = times.log_snr_span(schedule, u, discrete=False)
    # A bump of area 1 where every schedule here has levels.
    bump = jnp.asarray(stats.norm.pdf(np.asarray(level.log_snr, np.float64), -1.0, 1.0))
    assert float(jnp.mean(bump.astype(float) * span)) == pytest.approx(1.0, abs=0.02)


def test_importance_draws_by_the_root_of_its_history_and_weighs_it_back():
    history = jnp.asarray([1.0, 4.0, 9.0, 100.0])
    importance = Importance(history)
    warped = np.asarray(importance.warp(batch_of(count=4000)))
    assert stats.kstest(np.asarray(Importance.even(4).warp(batch_of())), "uniform").statistic < 0.01
    shares = np.bincount(np.floor(warped * 4).astype(int)) / 4000
    expected = 0.9 * np.asarray([1.0, 2.0, 3.0, 10.0]) / 16.0 + 0.1 / 4.0
    np.testing.assert_allclose(shares, expected, atol=1e-3)
    # The objective is that of uniform numbers: the integral of any function over (0, 1).
    weight = np.asarray(importance.weight(jnp.asarray(warped)))
    assert np.mean(weight * np.exp(warped)) == pytest.approx(np.e - 1.0, abs=5e-3)
    assert np.mean(weight) == pytest.approx(1.0, abs=1e-3)


def test_importance_learns_the_size_of_losses():
    importance = Importance.even(4)
    for key in range(120):
        places = importance.warp(batch_of(key, 64))
        importance = importance.updated(places, 1.0 + jnp.floor(places * 4))
    np.testing.assert_allclose(importance.history, [1.0, 4.0, 9.0, 16.0], rtol=1e-3)
    untouched = importance.updated(jnp.asarray([0.1]), jnp.asarray([5.0])).history
    np.testing.assert_array_equal(untouched[1:], importance.history[1:])
    with pytest.raises(ValueError, match="at least two parts"):
        Importance.even(1)


def test_numbers_out_of_range_are_refused():
    for wrong in (
        lambda: LogNormalTimes(std=0.0),
        lambda: ModeTimes(2.0),
        lambda: ShiftedTimes(shift=0.0),
    ):
        with pytest.raises(ValueError, match="must be between"):
            wrong()
