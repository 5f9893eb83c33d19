import jax.numpy as jnp
import numpy as np
import pytest

from diffusion_eqx.schedules import (
    DiscreteSchedule,
    cosine_betas,
    linear_betas,
    scaled_linear_betas,
)

BETAS = {
    "linear": linear_betas(1000, 1e-4, 0.02),
    "scaled_linear": scaled_linear_betas(1000, 8.5e-4, 0.012),
    "cosine": cosine_betas(1000),
}


@pytest.mark.parametrize("name", BETAS)
def test_alpha_bar_is_the_product_of_one_minus_beta(name):
    schedule = DiscreteSchedule(BETAS[name])
    t = schedule.time(jnp.arange(1000))
    expected = np.cumprod(1.0 - BETAS[name])
    np.testing.assert_allclose(schedule.alpha(t) ** 2, expected, rtol=2e-5)


@pytest.mark.parametrize("name", BETAS)
def test_variance_is_preserved_between_nodes_too(name):
    schedule = DiscreteSchedule(BETAS[name])
    t = jnp.linspace(0.0, 1.0, 777)
    np.testing.assert_allclose(schedule.alpha(t) ** 2 + schedule.sigma(t) ** 2, 1.0, atol=1e-6)
    assert np.all(np.diff(schedule.log_snr(t)) < 0)


def test_time_zero_is_clean():
    schedule = DiscreteSchedule(BETAS["linear"])
    zero = jnp.asarray(0.0)
    assert schedule.alpha(zero) == 1.0
    assert schedule.sigma(zero) == 0.0
    assert schedule.log_snr(zero) == jnp.inf


@pytest.mark.parametrize("total", [1, 7, 1000, 4000])
def test_integer_timesteps_survive_the_way_through_time_exactly(total):
    schedule = DiscreteSchedule(linear_betas(total, 1e-4, 0.02))
    timesteps = jnp.arange(total)
    np.testing.assert_array_equal(schedule.timestep(schedule.time(timesteps)), timesteps)


def test_cosine_matches_its_closed_form_where_it_is_not_capped():
    schedule = DiscreteSchedule(cosine_betas(1000))
    t = np.arange(1, 990) / 1000
    f = np.cos((t + 0.008) / 1.008 * np.pi / 2) ** 2 / np.cos(0.008 / 1.008 * np.pi / 2) ** 2
    np.testing.assert_allclose(schedule.alpha(jnp.asarray(t, jnp.float32)) ** 2, f, rtol=1e-4)


@pytest.mark.parametrize("betas", [[], [0.0], [1.0, 0.5], [1.1], [[0.1]], [0.1, -0.1], [np.nan]])
def test_impossible_betas_are_refused(betas):
    with pytest.raises(ValueError, match="betas must be"):
        DiscreteSchedule(np.asarray(betas))
