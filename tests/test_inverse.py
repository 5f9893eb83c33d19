"""Posterior sampling against the closed form: a Gaussian prior and a linear measurement."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from diffusion_eqx_export.lowering import lower

from diffusion_eqx.denoiser import GaussianDenoiser
from diffusion_eqx.guidance import (
    ClassifierFreeGuidance,
    ClipDenoised,
    DPSGuidance,
    Measurement,
    MomentMatchingGuidance,
    PseudoInverseGuidance,
)
from diffusion_eqx.guidance.conjugate_gradient import conjugate_gradient
from diffusion_eqx.samplers import DDIMSampler, DDPMSampler, sample
from diffusion_eqx.schedules import DiscreteSchedule, FlowSchedule, cosine_betas
from tests.correlated import CorrelatedGaussianDenoiser, conditional

COSINE = DiscreteSchedule(cosine_betas(1000))
D, M = 6, 3
RNG = np.random.default_rng(7)
# Each measured value mixes all coordinates.
MATRIX = RNG.standard_normal((M, D)) / np.sqrt(D)
MEAN = np.array([0.3, -0.2, 0.1, 0.0, 0.4, -0.5])
VALUE = MATRIX @ MEAN + np.array([0.5, -0.4, 0.3])
NOISE = 0.1
COUNT = 20_000

STD = 0.5
ISOTROPIC = GaussianDenoiser(jnp.asarray(MEAN, jnp.float32), STD * jnp.ones(D), COSINE)
COVARIANCE = 0.25 * 0.8 ** np.abs(np.subtract.outer(np.arange(D), np.arange(D)))
CORRELATED = CorrelatedGaussianDenoiser.of(MEAN, COVARIANCE, COSINE)


def operator(x):
    return x @ jnp.asarray(MATRIX.T, jnp.float32)


def measured(noise_std=NOISE):
    return Measurement(jnp.asarray(VALUE, jnp.float32)[None], operator, noise_std)


def errors(denoiser, covariance, key, sampler=DDIMSampler, steps=200) -> tuple[float, float]:
    """How far mean and covariance of samples are from the posterior's, relative to its spread."""
    drawn = np.asarray(sample(sampler(denoiser), (D,), count=COUNT, steps=steps, key=key))
    mean, posterior = conditional(MEAN, covariance, MATRIX, VALUE, NOISE)
    off = np.linalg.norm(drawn.mean(0) - mean) / np.sqrt(np.trace(posterior))
    spread = np.linalg.norm(np.cov(drawn, rowvar=False) - posterior) / np.linalg.norm(posterior)
    return float(off), float(spread)


@pytest.mark.parametrize(
    ("denoiser", "covariance"),
    [
        (PseudoInverseGuidance(ISOTROPIC, measured(), data_std=STD), STD**2 * np.eye(D)),
        (MomentMatchingGuidance(ISOTROPIC, measured()), STD**2 * np.eye(D)),
        (MomentMatchingGuidance(CORRELATED, measured()), COVARIANCE),
    ],
    ids=["pigdm", "mmps", "mmps-correlated"],
)
@pytest.mark.parametrize("sampler", [DDIMSampler, DDPMSampler])
def test_samples_have_the_posteriors_moments(denoiser, covariance, sampler, getkey):
    off, spread = errors(denoiser, covariance, getkey(), sampler)
    assert off < 0.03, off
    assert spread < 0.05, spread


@pytest.mark.parametrize(
    "broken",
    [
        CORRELATED,
        MomentMatchingGuidance(CORRELATED, measured(3 * NOISE)),
        MomentMatchingGuidance(CORRELATED, measured(), iterations=1),
        PseudoInverseGuidance(CORRELATED, measured(), data_std=2 * STD),
    ],
    ids=["unguided", "noise", "iterations", "spread"],
)
def test_broken_guidance_has_others(broken, getkey):
    off, spread = errors(broken, COVARIANCE, getkey())
    assert off > 0.1 or spread > 0.1, (off, spread)


def test_dps_finds_the_posteriors_mean_roughly(getkey):
    """Much nearer to it than the prior's, yet a third of a standard deviation away."""
    key = getkey()
    off, _ = errors(DPSGuidance(CORRELATED, measured(), 5.0), COVARIANCE, key)
    unguided, _ = errors(CORRELATED, COVARIANCE, key)
    assert off < 0.25 * unguided, (off, unguided)


@pytest.mark.parametrize("method", [PseudoInverseGuidance, MomentMatchingGuidance])
def test_an_exact_measurement_is_obeyed(method, getkey):
    drawn = sample(
        DDIMSampler(method(ISOTROPIC, measured(0.0))), (D,), count=64, steps=100, key=getkey()
    )
    assert float(jnp.abs(operator(drawn) - VALUE).max()) < 0.02


def test_each_example_has_its_own_measurement(getkey):
    """Also inside of classifier-free guidance, which doubles the batch."""
    values = jnp.asarray(np.stack([VALUE, VALUE + 0.5]), jnp.float32)

    @eqx.filter_jit
    def x0(denoiser, x, cond=None):
        return denoiser(x, t, cond).x0

    guided = MomentMatchingGuidance(CORRELATED, Measurement(values, operator, NOISE))
    x, t = jax.random.normal(getkey(), (2, D)), jnp.asarray(0.4)
    both = x0(guided, x)
    for i in range(2):
        alone = MomentMatchingGuidance(CORRELATED, Measurement(values[i : i + 1], operator, NOISE))
        np.testing.assert_allclose(both[i], x0(alone, x[i : i + 1])[0], atol=1e-5)
    doubled = x0(ClassifierFreeGuidance(guided, 2.0, -1), x, jnp.zeros(2, jnp.int32))
    np.testing.assert_allclose(doubled, both, atol=1e-5)
    with pytest.raises(ValueError, match="measurements of 2 examples, but 3"):
        guided(jax.random.normal(getkey(), (3, D)), t)


def test_guidance_outside_of_clipping_is_refused():
    with pytest.raises(ValueError, match="inside of clipping"):
        MomentMatchingGuidance(ClipDenoised(CORRELATED), measured())


def test_a_start_without_signal_is_finite(getkey):
    prior = CorrelatedGaussianDenoiser.of(MEAN, COVARIANCE, FlowSchedule())
    for method in (PseudoInverseGuidance, MomentMatchingGuidance):
        off, spread = errors(method(prior, measured()), COVARIANCE, getkey(), steps=100)
        assert np.isfinite([off, spread]).all()


def test_conjugate_gradients_solve_each_example():
    matrices = RNG.standard_normal((4, D, D))
    matrices = jnp.asarray(matrices @ matrices.transpose(0, 2, 1) + np.eye(D), jnp.float32)
    right = jnp.asarray(RNG.standard_normal((4, D)), jnp.float32).at[2].set(0.0)
    # Many more iterations than it takes: what is solved must stay.
    found = conjugate_gradient(
        lambda v: jnp.einsum("bij,bj->bi", matrices, v), right, iterations=60
    )
    expected = np.linalg.solve(np.asarray(matrices), np.asarray(right)[..., None])[..., 0]
    np.testing.assert_allclose(found, expected, atol=2e-3)
    np.testing.assert_array_equal(found[2], 0.0)


@pytest.mark.parametrize("method", [PseudoInverseGuidance, MomentMatchingGuidance])
def test_a_guided_step_is_exportable(method):
    sampler = DDIMSampler(method(CORRELATED, measured()))

    def step(x):
        state = sampler.resume(x, 3, 10, keys=jax.random.split(jax.random.key(0), len(x)))
        return [sampler.step(state, 3, 10).x]

    lower(step, [jax.ShapeDtypeStruct((4, D), jnp.float32)], donated=[], platform="cpu")
