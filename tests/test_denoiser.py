import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion_eqx.config import ScoreDiffusionConfig
from diffusion_eqx.denoiser import Denoiser
from diffusion_eqx.exact import (
    CorrelatedGaussianDenoiser,
    GaussianDenoiser,
    GaussianMixtureDenoiser,
)
from diffusion_eqx.guidance import ClassifierFreeGuidance, Clipping, Guided
from diffusion_eqx.parameterizations import ScorePrediction
from diffusion_eqx.schedules import DiscreteSchedule, VESchedule, cosine_betas, linear_betas, over
from tests.catalogue import PARAMETERIZATIONS, SCHEDULES
from tests.oracle_network import OracleNetwork
from tests.test_combinations import refused_pairs

SCHEDULE = DiscreteSchedule(linear_betas(1000, 1e-4, 0.02))
MIXTURE = GaussianMixtureDenoiser(
    weights=jnp.array([0.3, 0.7]),
    means=jnp.array([[0.5, 0.2], [-0.4, 0.1]]),
    stds=jnp.array([0.1, 0.2]),
    schedule=SCHEDULE,
)


@pytest.mark.parametrize("name", PARAMETERIZATIONS)
@pytest.mark.parametrize("schedule", ["linear", "zero_snr", "vp", "ve", "edm", "flow"])
def test_a_network_of_known_answer_makes_the_exact_denoiser(schedule, name, getkey):
    """Through its own input c_in·x and what it is told of the level, whatever it predicts."""
    if (schedule, name) in refused_pairs():
        return
    schedule = SCHEDULES[schedule]
    oracle = GaussianDenoiser(jnp.array([0.3, -0.2]), jnp.array([0.5, 0.1]), schedule)
    level = schedule.at_timestep(jnp.asarray([0, 10, 500, 900]))
    x = level.noised(jnp.stack([oracle.mean] * 4), jax.random.normal(getkey(), (4, 2)))
    network = OracleNetwork(PARAMETERIZATIONS[name], oracle)
    found = Denoiser(network, schedule, PARAMETERIZATIONS[name])(x, level)
    expected = oracle(x, level)
    np.testing.assert_allclose(found.x0, expected.x0, atol=2e-3)
    # The noise of the least level is a difference that single precision keeps to a thousandth of its size.
    np.testing.assert_allclose(found.eps, expected.eps, atol=2e-3 + 1e-6 / float(level.sigma[0]))


def test_prediction_explains_the_noisy_example(getkey):
    x = jax.random.normal(getkey(), (5, 2))
    level = SCHEDULE.at(jnp.linspace(0.1, 0.9, 5))
    x0, eps = MIXTURE(x, level)
    np.testing.assert_allclose(level.noised(x0, eps), x, atol=1e-5)


def test_mixture_is_the_score_of_its_own_density(getkey):
    """eps = −sigma · grad log p_t(x): the density by hand, its gradient by autodiff."""
    t = 0.4
    level = SCHEDULE.at(t)
    alpha, sigma = level.alpha, level.sigma

    def log_density(x):
        variance = alpha**2 * MIXTURE.stds**2 + sigma**2
        squared = jnp.sum((x[None] - alpha * MIXTURE.means) ** 2, axis=-1)
        return jax.nn.logsumexp(
            jnp.log(MIXTURE.weights) - squared / (2 * variance) - jnp.log(variance)
        )

    x = jax.random.normal(getkey(), (32, 2))
    expected = -sigma * jax.vmap(jax.grad(log_density))(x)
    np.testing.assert_allclose(MIXTURE(x, t).eps, expected, atol=1e-5)


def test_mixture_of_one_is_the_gaussian(getkey):
    gaussian = GaussianDenoiser(jnp.array([0.3, -0.1]), jnp.array([0.2, 0.2]), SCHEDULE)
    mixture = GaussianMixtureDenoiser(jnp.ones(1), gaussian.mean[None], gaussian.std[:1], SCHEDULE)
    x, t = jax.random.normal(getkey(), (8, 2)), 0.3
    np.testing.assert_allclose(mixture(x, t).x0, gaussian(x, t).x0, atol=1e-6)


def test_guidance_of_one_is_the_conditional_prediction_bit_for_bit(getkey):
    x, t = jax.random.normal(getkey(), (8, 2)), 0.6
    cond = jnp.array([0, 1] * 4)
    guided = Guided(MIXTURE, ClassifierFreeGuidance(1.0))(x, t, cond)
    np.testing.assert_array_equal(guided.x0, MIXTURE(x, t, cond).x0)


def test_guidance_extrapolates_from_the_unconditional(getkey):
    x, t = jax.random.normal(getkey(), (8, 2)), 0.6
    cond = jnp.zeros(8, jnp.int32)
    conditional, unconditional = MIXTURE(x, t, cond).eps, MIXTURE(x, t).eps
    for scale in (0.0, 2.5):
        guided = Guided(MIXTURE, ClassifierFreeGuidance(scale))(x, t, cond).eps
        expected = unconditional + scale * (conditional - unconditional)
        np.testing.assert_allclose(guided, expected, atol=1e-5)


def test_guidance_acts_inside_its_interval_only(getkey):
    x, cond = jax.random.normal(getkey(), (8, 2)), jnp.zeros(8, jnp.int32)
    limited = Guided(MIXTURE, ClassifierFreeGuidance(3.0, interval=(0.2, 0.7)))
    whole = Guided(MIXTURE, ClassifierFreeGuidance(3.0))
    for t, expected in ((0.1, MIXTURE), (0.5, whole), (0.9, MIXTURE)):
        np.testing.assert_allclose(limited(x, t, cond).x0, expected(x, t, cond).x0, atol=1e-6)
    times = jnp.where(jnp.arange(8) < 4, 0.1, 0.5)
    mixed = limited(x, times, cond).x0
    np.testing.assert_allclose(mixed[:4], MIXTURE(x, times, cond).x0[:4], atol=1e-6)
    np.testing.assert_allclose(mixed[4:], whole(x, times, cond).x0[4:], atol=1e-6)


def test_guidance_without_condition_is_refused(getkey):
    guided = Guided(MIXTURE, ClassifierFreeGuidance(2.0))
    with pytest.raises(ValueError, match="needs a condition, such as labels"):
        guided(jax.random.normal(getkey(), (8, 2)), 0.6)


def test_clipping_keeps_the_pair_consistent(getkey):
    schedule = DiscreteSchedule(cosine_betas(1000))
    wide = GaussianDenoiser(jnp.zeros(2), 5 * jnp.ones(2), schedule)
    x, level = 3 * jax.random.normal(getkey(), (64, 2)), schedule.at(0.3)
    x0, eps = Guided(wide, Clipping())(x, level)
    assert float(jnp.abs(wide(x, level).x0).max()) > 1.0
    assert float(jnp.abs(x0).max()) <= 1.0
    np.testing.assert_allclose(level.noised(x0, eps), x, atol=1e-5)


def test_a_correlated_gaussian_is_the_posterior_of_the_textbook(getkey):
    """E[x0 | x] of joint Gaussians, by NumPy's solver."""
    rng = np.random.default_rng(0)
    root = rng.standard_normal((4, 4))
    covariance, mean = root @ root.T / 4 + 0.1 * np.eye(4), rng.standard_normal(4)
    denoiser = CorrelatedGaussianDenoiser.of(
        jnp.asarray(mean.reshape(2, 2, 1), jnp.float32),
        jnp.asarray(covariance, jnp.float32),
        SCHEDULE,
    )
    level = SCHEDULE.at(jnp.asarray([0.2, 0.6]))
    x = np.asarray(jax.random.normal(getkey(), (2, 4)), np.float64)
    x0, eps = denoiser(jnp.asarray(x.reshape(2, 2, 2, 1), jnp.float32), level)
    for i in range(2):
        alpha, sigma = float(level.alpha[i]), float(level.sigma[i])
        total = alpha**2 * covariance + sigma**2 * np.eye(4)
        expected = mean + alpha * covariance @ np.linalg.solve(total, x[i] - alpha * mean)
        np.testing.assert_allclose(x0[i].ravel(), expected, atol=1e-4)
        np.testing.assert_allclose(eps[i].ravel(), (x[i] - alpha * expected) / sigma, atol=1e-3)


def test_a_time_may_be_a_number_and_an_integer_may_not(getkey):
    x = jax.random.normal(getkey(), (3, 2))
    np.testing.assert_array_equal(MIXTURE(x, 0.5).x0, MIXTURE(x, SCHEDULE.at(0.5)).x0)
    with pytest.raises(ValueError, match="at_timestep"):
        MIXTURE(x, 1)
    with pytest.raises(ValueError, match="a time lies in"):
        MIXTURE(x, 1.5)


class Spy(OracleNetwork):
    """Records what reaches the network."""

    def __call__(self, x, c_noise, cond, *, key):
        SEEN.append(cond)
        return x


SEEN = []


def test_labels_reach_the_network_bare_and_none_is_the_null_condition():
    denoiser = Denoiser(Spy(ScorePrediction(), MIXTURE), SCHEDULE, ScorePrediction(), null=7)
    x, labels = jnp.zeros((3, 2)), jnp.asarray([1, 2, 3])
    SEEN.clear()
    for cond in (labels, {"label": labels}, None, {}):
        denoiser(x, 0.5, cond)
    for found in SEEN[:2]:
        np.testing.assert_array_equal(found, labels)
    for found in SEEN[2:]:
        np.testing.assert_array_equal(found, [7, 7, 7])
    assert SEEN[2].dtype == jnp.int32
    SEEN.clear()
    denoiser(x, 0.5, {"label": labels, "text": x})
    assert set(SEEN[0]) == {"label", "text"}


# What a score model calls a score.


@pytest.mark.parametrize("schedule", ["ve", "vp"])
def test_the_score_of_gaussian_data_is_exact(schedule, getkey):
    """grad log N(x; alpha·m, alpha²s² + sigma²) = −(x − alpha·m)/(alpha²s² + sigma²) = −eps/sigma."""
    schedule = SCHEDULES[schedule]
    exact = GaussianDenoiser(jnp.full((6, 4, 1), 0.3), jnp.full((6, 4, 1), 0.2), schedule)
    x, level = jax.random.normal(getkey(), (3, 6, 4, 1)), schedule.at(jnp.array([0.05, 0.4, 1.0]))
    found = -exact(x, level).eps / over(level.sigma, x)
    alpha, sigma = (np.asarray(a).reshape(3, 1, 1, 1) for a in (level.alpha, level.sigma))
    expected = -(x - alpha * 0.3) / (alpha**2 * 0.2**2 + sigma**2)
    np.testing.assert_allclose(found, expected, rtol=2e-4, atol=2e-5)


@pytest.mark.parametrize("scaling", [1.0, 2.5])
@pytest.mark.parametrize("divided", [True, False])
def test_the_network_gives_the_score_times_sigma(scaling, divided, getkey):
    """score = scaling·F(x/sqrt(1 + sigma²))/sigma under variance-exploding noise, or scaling·F."""
    schedule = VESchedule(0.01, 5.0)
    denoiser = Denoiser(
        lambda x, c_noise, cond, *, key: jnp.sin(3 * x) + over(c_noise / 1000, x),
        schedule,
        ScorePrediction(scaling, divided),
    )
    x, level = 3.0 * jax.random.normal(getkey(), (3, 2)), schedule.at(jnp.array([0.3, 0.6, 1.0]))
    sigma = np.asarray(level.sigma)[:, None]
    timesteps = np.array([299.0, 599.0, 999.0])[:, None]
    output = np.sin(3 * np.asarray(x) / np.sqrt(1 + sigma**2)) + timesteps / 1000
    score = -denoiser(x, level).eps / sigma
    np.testing.assert_allclose(
        score, scaling * output / (sigma if divided else 1.0), rtol=2e-3, atol=2e-3
    )


def test_the_score_by_karras_is_that_of_his_denoiser(getkey):
    """score = (D(x; sigma) − x)/sigma², D = c_skip·x + c_out·F(c_in·x, log(sigma)/4), sigma_data = 0.5."""
    schedule = SCHEDULES["edm"]
    denoiser = Denoiser(
        lambda x, c_noise, cond, *, key: jnp.cos(x) + over(c_noise, x),
        schedule,
        PARAMETERIZATIONS["edm"],
    )
    x, level = 3.0 * jax.random.normal(getkey(), (3, 2)), schedule.at(jnp.array([0.3, 0.6, 1.0]))
    sigma = np.asarray(level.sigma)[:, None]
    total = sigma**2 + 0.25
    output = np.cos(np.asarray(x) / np.sqrt(total)) + np.log(sigma) / 4
    clean = 0.25 / total * x + sigma * 0.5 / np.sqrt(total) * output
    score = -denoiser(x, level).eps / sigma
    np.testing.assert_allclose(score, (clean - x) / sigma**2, rtol=1e-3, atol=1e-4)


def test_only_scores_are_scaled():
    with pytest.raises(ValueError, match=r"score_scaling=2\.0 is of prediction_type"):
        ScoreDiffusionConfig(prediction_type="edm", score_scaling=2.0)
