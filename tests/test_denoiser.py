import jax
import jax.numpy as jnp
import numpy as np
import pytest
from diffusion_eqx.parameterization import Epsilon, Sample, VPrediction

from diffusion_eqx.denoiser import Denoiser, GaussianDenoiser, GaussianMixtureDenoiser
from diffusion_eqx.guidance import ClassifierFreeGuidance, ClipDenoised
from diffusion_eqx.schedules import DiscreteSchedule, cosine_betas, like, linear_betas
from tests.oracle_network import OracleNetwork

SCHEDULE = DiscreteSchedule(linear_betas(1000, 1e-4, 0.02))
MIXTURE = GaussianMixtureDenoiser(
    weights=jnp.array([0.3, 0.7]),
    means=jnp.array([[0.5, 0.2], [-0.4, 0.1]]),
    stds=jnp.array([0.1, 0.2]),
    schedule=SCHEDULE,
)


@pytest.mark.parametrize("timestep", [0, 10, 500, 900])
@pytest.mark.parametrize(
    ("name", "parameterization"),
    [("epsilon", Epsilon()), ("sample", Sample()), ("v_prediction", VPrediction())],
)
def test_parameterizations_agree(name, parameterization, timestep, getkey):
    oracle = GaussianDenoiser(jnp.array([0.3, -0.2]), jnp.array([0.5, 0.1]), SCHEDULE)
    x_t = jax.random.normal(getkey(), (16, 2))
    t = SCHEDULE.time(jnp.asarray(timestep))
    found = Denoiser(OracleNetwork(name, oracle), SCHEDULE, parameterization)(x_t, t)
    expected = oracle(x_t, t)
    np.testing.assert_allclose(found.x0, expected.x0, atol=2e-4)
    np.testing.assert_allclose(found.eps, expected.eps, atol=2e-4)


def test_prediction_explains_the_noisy_example(getkey):
    x_t = jax.random.normal(getkey(), (5, 2))
    t = jnp.linspace(0.1, 0.9, 5)
    x0, eps, _ = MIXTURE(x_t, t)
    rebuilt = like(SCHEDULE.alpha(t), x_t) * x0 + like(SCHEDULE.sigma(t), x_t) * eps
    np.testing.assert_allclose(rebuilt, x_t, atol=1e-5)


def test_mixture_is_the_score_of_its_own_density(getkey):
    """eps = −sigma · grad log p_t(x): the density by hand, its gradient by autodiff."""
    t = jnp.asarray(0.4)
    alpha, sigma = SCHEDULE.alpha(t), SCHEDULE.sigma(t)

    def log_density(x):
        variance = alpha**2 * MIXTURE.stds**2 + sigma**2
        squared = jnp.sum((x - alpha * MIXTURE.means) ** 2, axis=-1)
        return jax.nn.logsumexp(
            jnp.log(MIXTURE.weights) - squared / (2 * variance) - jnp.log(variance)
        )

    x = jax.random.normal(getkey(), (32, 2))
    expected = -sigma * jax.vmap(jax.grad(log_density))(x)
    np.testing.assert_allclose(MIXTURE(x, t).eps, expected, atol=1e-5)


def test_mixture_of_one_is_the_gaussian(getkey):
    gaussian = GaussianDenoiser(jnp.array([0.3, -0.1]), jnp.array([0.2, 0.2]), SCHEDULE)
    mixture = GaussianMixtureDenoiser(jnp.ones(1), gaussian.mean[None], gaussian.std[:1], SCHEDULE)
    x, t = jax.random.normal(getkey(), (8, 2)), jnp.asarray(0.3)
    np.testing.assert_allclose(mixture(x, t).x0, gaussian(x, t).x0, atol=1e-6)


def test_guidance_of_one_is_the_conditional_prediction_bit_for_bit(getkey):
    x, t = jax.random.normal(getkey(), (8, 2)), jnp.asarray(0.6)
    cond = jnp.array([0, 1] * 4)
    guided = ClassifierFreeGuidance(MIXTURE, 1.0, -1)(x, t, cond)
    np.testing.assert_array_equal(guided.x0, MIXTURE(x, t, cond).x0)


def test_guidance_extrapolates_from_the_unconditional(getkey):
    x, t = jax.random.normal(getkey(), (8, 2)), jnp.asarray(0.6)
    cond = jnp.zeros(8, jnp.int32)
    conditional, unconditional = MIXTURE(x, t, cond).eps, MIXTURE(x, t).eps
    for scale in (0.0, 2.5):
        guided = ClassifierFreeGuidance(MIXTURE, scale, -1)(x, t, cond).eps
        expected = unconditional + scale * (conditional - unconditional)
        np.testing.assert_allclose(guided, expected, atol=1e-5)


def test_guidance_acts_inside_its_interval_only(getkey):
    x, cond = jax.random.normal(getkey(), (8, 2)), jnp.zeros(8, jnp.int32)
    limited = ClassifierFreeGuidance(MIXTURE, 3.0, -1, interval=(0.2, 0.7))
    whole = ClassifierFreeGuidance(MIXTURE, 3.0, -1)
    for t, expected in ((0.1, MIXTURE), (0.5, whole), (0.9, MIXTURE)):
        t = jnp.asarray(t)
        np.testing.assert_array_equal(limited(x, t, cond).x0, expected(x, t, cond).x0)
    times = jnp.where(jnp.arange(8) < 4, 0.1, 0.5)
    mixed = limited(x, times, cond).x0
    np.testing.assert_allclose(mixed[:4], MIXTURE(x, times, cond).x0[:4], atol=1e-6)
    np.testing.assert_allclose(mixed[4:], whole(x, times, cond).x0[4:], atol=1e-6)


def test_guidance_without_condition_is_refused(getkey):
    guided = ClassifierFreeGuidance(MIXTURE, 2.0, -1)
    with pytest.raises(ValueError, match="needs a conditioning"):
        guided(jax.random.normal(getkey(), (8, 2)), jnp.asarray(0.6))


def test_clipping_keeps_the_pair_consistent(getkey):
    schedule = DiscreteSchedule(cosine_betas(1000))
    wide = GaussianDenoiser(jnp.zeros(2), 5 * jnp.ones(2), schedule)
    x, t = 3 * jax.random.normal(getkey(), (64, 2)), jnp.asarray(0.3)
    x0, eps, _ = ClipDenoised(wide)(x, t)
    assert float(jnp.abs(wide(x, t).x0).max()) > 1.0
    assert float(jnp.abs(x0).max()) <= 1.0
    np.testing.assert_allclose(schedule.alpha(t) * x0 + schedule.sigma(t) * eps, x, atol=1e-5)
