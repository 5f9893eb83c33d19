"""The variational bound against closed forms, and the hybrid loss by which the variance is learnt."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import integrate, stats

from diffusion_eqx.denoiser import Denoiser, Prediction
from diffusion_eqx.exact import GaussianDenoiser
from diffusion_eqx.losses import (
    DenoisingLoss,
    HybridLoss,
    bound_terms,
    discretized_log_likelihood,
)
from diffusion_eqx.parameterizations import EpsilonPrediction
from diffusion_eqx.schedules import DiscreteSchedule, VPSchedule, cosine_betas, linear_betas

BETAS = np.linspace(1e-4, 0.02, 1000)
LINEAR = DiscreteSchedule(BETAS)
compiled_terms = eqx.filter_jit(bound_terms)


def simple_loss(schedule) -> DenoisingLoss:
    return DenoisingLoss(Denoiser(lambda *_, key: None, schedule, EpsilonPrediction()))


def with_fraction(predicted: Prediction, fraction) -> Prediction:
    return Prediction(predicted.x0, predicted.eps, jnp.full_like(predicted.x0, fraction))


def posterior(timestep: int, x0, x_t):
    """Mean and variance of q(x_{k−1} | x_k, x0) from the betas (Ho et al. 2020, eqs. 6-7)."""
    alpha_bar = np.cumprod(1 - BETAS)
    now, before, beta = alpha_bar[timestep], alpha_bar[timestep - 1], BETAS[timestep]
    mean = np.sqrt(before) * beta / (1 - now) * x0
    mean = mean + np.sqrt(1 - beta) * (1 - before) / (1 - now) * x_t
    return mean, beta * (1 - before) / (1 - now)


@pytest.mark.parametrize("timestep", [1, 2, 40, 500, 999])
@pytest.mark.parametrize("fraction", [0.0, 0.3, 1.0, 1.5])
def test_later_terms_are_the_divergence_of_two_gaussians(timestep, fraction):
    """The integral of q·log(q/p), by quadrature in double precision."""
    x0, predicted, x_t = 0.4, 0.1, 0.7
    mean_q, variance_q = posterior(timestep, x0, x_t)
    mean_p, _ = posterior(timestep, predicted, x_t)
    variance_p = variance_q ** (1 - fraction) * BETAS[timestep] ** fraction
    q, p = stats.norm(mean_q, variance_q**0.5), stats.norm(mean_p, variance_p**0.5)
    ends = mean_q - 12 * variance_q**0.5, mean_q + 12 * variance_q**0.5
    nats, _ = integrate.quad(
        lambda x: q.pdf(x) * (q.logpdf(x) - p.logpdf(x)), *ends, epsabs=1e-13, epsrel=1e-10
    )
    level = LINEAR.at_timestep(jnp.array([timestep]))
    shape = (1, 1)
    given = Prediction(jnp.full(shape, predicted), jnp.zeros(shape), jnp.full(shape, fraction))
    found = compiled_terms(LINEAR, jnp.full(shape, x0), level, given)
    np.testing.assert_allclose(found, nats / np.log(2), rtol=2e-3, atol=1e-7)


def test_the_first_term_is_the_likelihood_of_grey_levels():
    levels = np.linspace(-1, 1, 256)
    fraction, mean = 0.5, 0.02 + 0.98 * levels[::-1]
    _, variance_1 = posterior(1, 0.0, 0.0)
    std = np.sqrt(variance_1 ** (1 - fraction) * BETAS[0] ** fraction)
    given = Prediction(
        jnp.asarray(mean, jnp.float32)[None], jnp.zeros((1, 256)), jnp.full((1, 256), fraction)
    )
    level = LINEAR.at_timestep(jnp.array([0]))
    found = compiled_terms(LINEAR, jnp.asarray(levels, jnp.float32)[None], level, given)
    upper = np.where(levels > 0.999, np.inf, levels + 1 / 255)
    lower = np.where(levels < -0.999, -np.inf, levels - 1 / 255)
    tail = mean < levels  # Where masses are counted from the other side, they do not round to 0.
    logs = np.where(
        tail,
        _log_difference(
            stats.norm.logsf((lower - mean) / std), stats.norm.logsf((upper - mean) / std)
        ),
        _log_difference(
            stats.norm.logcdf((upper - mean) / std), stats.norm.logcdf((lower - mean) / std)
        ),
    )
    np.testing.assert_allclose(found, [-logs.mean() / np.log(2)], rtol=1e-4)


def _log_difference(larger, smaller):
    with np.errstate(divide="ignore"):
        return larger + np.log1p(-np.exp(smaller - larger))


@pytest.mark.parametrize("std", [1e-3, 0.01, 0.2, 3.0])
def test_grey_levels_have_all_the_mass(std):
    levels = jnp.linspace(-1, 1, 256)
    for mean in (-1.3, -0.5, 0.1234, 1.0):
        logs = discretized_log_likelihood(levels, jnp.full(256, mean), jnp.full(256, np.log(std)))
        assert float(jnp.exp(logs).sum()) == pytest.approx(1.0, abs=2e-4)


def test_the_whole_bound_of_a_gaussian_is_its_closed_form(getkey):
    """For data N(m, s²) and its exact denoiser, e² has a known mean at each time: the sum over all
    timesteps but the first, over random examples, is the sum of the exact divergences.
    """
    schedule = DiscreteSchedule(cosine_betas(100))
    denoiser = GaussianDenoiser(jnp.array([0.3]), jnp.array([0.2]), schedule)
    level = schedule.at_timestep(jnp.repeat(jnp.arange(1, 100), 4000))
    x0 = 0.3 + 0.2 * jax.random.normal(getkey(), (99 * 4000, 1))
    x = level.noised(x0, jax.random.normal(getkey(), x0.shape))
    predicted = with_fraction(denoiser(x, level), 0.0)
    found = compiled_terms(schedule, x0, level, predicted).sum() / 4000
    alpha_bar = np.concatenate([[1.0], np.cumprod(1 - cosine_betas(100))])
    snr = alpha_bar[1:] / (1 - alpha_bar[1:])
    error = 1 / (1 / 0.2**2 + snr[1:])  # Variance of x0 given x_t.
    exact = 0.5 * np.sum((snr[:-1] - snr[1:]) * error) / np.log(2)
    assert float(found) == pytest.approx(exact, rel=0.01)


@pytest.mark.parametrize("schedule", [LINEAR, VPSchedule()], ids=["linear", "vp"])
def test_a_wrong_variance_has_a_larger_bound(schedule, getkey):
    """The best fraction for a Gaussian is where v is the mean square of what the step misses."""
    denoiser = GaussianDenoiser(jnp.zeros(1), jnp.full(1, 0.5), schedule)
    for time in (0.002, 0.01, 0.1):
        level = schedule.at(jnp.full(4000, time))
        x0 = 0.5 * jax.random.normal(getkey(), (4000, 1))
        x = level.noised(x0, jax.random.normal(getkey(), x0.shape))
        predicted = denoiser(x, level)

        def bound(fraction, x0=x0, level=level, predicted=predicted):
            given = with_fraction(predicted, fraction)
            return float(compiled_terms(schedule, x0, level, given).mean())

        ends = schedule.at(time), schedule.at(time - 1e-3)
        now, before = (float(jnp.exp(end.log_snr)) for end in ends)
        span = 2 * float(jnp.log(ends[0].sigma / ends[1].sigma))
        missed = (before - now) * float(jnp.mean((predicted.x0 - x0) ** 2))
        best = np.log1p(missed) / span
        for wrong in (best - 0.3, best + 0.3, best + 1.0):
            assert bound(wrong) > bound(best)


def test_a_bound_without_a_variance_is_refused(getkey):
    x = jnp.zeros((2, 1))
    with pytest.raises(ValueError, match="learned_variance"):
        bound_terms(LINEAR, x, LINEAR.at(jnp.full(2, 0.5)), Prediction(x, x))
    with pytest.raises(ValueError, match="two timesteps"):
        HybridLoss(simple_loss(DiscreteSchedule(np.array([0.5]))))


class Constant(eqx.Module):
    """A backbone of one output for every pixel."""

    mean: jax.Array
    variance: jax.Array

    def __call__(self, x, c_noise, cond, *, key):
        ones = jnp.ones_like(x)
        return jnp.concatenate([self.mean * ones, self.variance * ones], axis=-1)


def test_the_bound_leaves_the_mean_alone(getkey):
    """The gradient to the mean is that of the simple loss; to the variance, that of the bound."""
    simple = simple_loss(DiscreteSchedule(linear_betas(100, 1e-3, 0.2)))
    x0, key = jnp.round(jax.random.uniform(getkey(), (50, 4, 4, 1)) * 255) / 127.5 - 1, getkey()
    backbone = Constant(jnp.asarray(0.1), jnp.asarray(0.2))

    @eqx.filter_jit
    def gradient(weight):
        return eqx.filter_grad(lambda b: HybridLoss(simple, weight)(b, x0, key=key))(backbone)

    none, some = gradient(0.0), gradient(0.1)
    assert float(none.variance) == 0.0
    np.testing.assert_allclose(some.mean, none.mean, rtol=1e-6)
    assert float(jnp.abs(none.mean)) > 1e-3
    assert float(jnp.abs(some.variance)) > 1e-3
    half = jax.jit(
        jax.grad(
            lambda m: simple(lambda *a, key: Constant(m, m)(*a, key=key)[..., :1], x0, key=key)
        )
    )(backbone.mean)
    np.testing.assert_allclose(none.mean, half, rtol=1e-6)


@pytest.mark.parametrize("output", [-50.0, -1.0, 0.0, 1.0, 50.0])
def test_gradients_of_far_outputs_are_finite(output, getkey):
    loss = HybridLoss(simple_loss(LINEAR))
    x0 = jnp.linspace(-1, 1, 64 * 16).reshape(64, 4, 4, 1)
    backbone = Constant(jnp.asarray(output), jnp.asarray(0.1 * output))
    key = getkey()
    with_gradient = eqx.filter_jit(eqx.filter_value_and_grad(lambda b: loss(b, x0, key=key)))
    value, grads = with_gradient(backbone)
    assert np.isfinite([value, grads.mean, grads.variance]).all()


def test_training_finds_the_best_variance(getkey):
    """Of the exact denoiser of N(0, 1/4) with one free number for all variances."""
    exact = GaussianDenoiser(jnp.zeros(1), jnp.full(1, 0.5), LINEAR)
    loss = HybridLoss(simple_loss(LINEAR), 1.0)

    class Learner(eqx.Module):
        variance: jax.Array

        def __call__(self, x, c_noise, cond, *, key):
            eps = exact(x, (c_noise + 1.0) / 1000).eps
            return jnp.concatenate([eps, self.variance * jnp.ones_like(x)], axis=-1)

    def bound(variance, key, count=256):
        x0 = 0.5 * jax.random.normal(key, (count, 16, 1))
        return loss(Learner(variance), x0, key=key)

    def step(carry, key):
        variance, state = carry
        # The optimiser's own arithmetic mixes types.
        with jax.numpy_dtype_promotion("standard"):
            updates, state = optimizer.update(jax.grad(bound)(variance, key), state)
        return (variance + updates, state), None

    optimizer = optax.adam(optax.cosine_decay_schedule(0.1, 300))
    start = jnp.asarray(-1.0)
    keys = jax.random.split(getkey(), 300)
    (found, _), _ = jax.lax.scan(step, (start, optimizer.init(start)), keys)
    near = [jax.jit(bound, static_argnums=2)(found + d, keys[0], 8000) for d in (-0.4, 0.0, 0.4)]
    assert near[1] < min(near[0], near[2])
