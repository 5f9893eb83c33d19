"""Posterior sampling against the closed form: a Gaussian prior and a linear measurement."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion_eqx.exact import GaussianDenoiser
from diffusion_eqx.guidance import (
    ClassifierFreeGuidance,
    Clipping,
    DPSGuidance,
    Guided,
    MomentMatchingGuidance,
    PseudoInverseGuidance,
    conjugate_gradient,
)
from diffusion_eqx.samplers import DDIMSampler, DDPMSampler, sample
from diffusion_eqx.schedules import FlowSchedule
from tests.catalogue import SCHEDULES
from tests.correlated import conditional, correlated

COSINE = SCHEDULES["cosine"]
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
CORRELATED = correlated(MEAN, COVARIANCE, COSINE)


def operator(x):
    return x @ jnp.asarray(MATRIX.T, jnp.float32)


MEASURED = {"measurement": jnp.asarray(VALUE, jnp.float32)[None]}


def errors(
    denoiser, guidance, covariance, key, sampler=DDIMSampler(), steps=200
) -> tuple[float, float]:
    """How far mean and covariance of samples are from the posterior's, relative to its spread."""
    drawn = sample(
        denoiser, sampler, (D,), count=COUNT, steps=steps, key=key, guidance=guidance, cond=MEASURED
    )
    drawn = np.asarray(drawn)
    mean, posterior = conditional(MEAN, covariance, MATRIX, VALUE, NOISE)
    off = np.linalg.norm(drawn.mean(0) - mean) / np.sqrt(np.trace(posterior))
    spread = np.linalg.norm(np.cov(drawn, rowvar=False) - posterior) / np.linalg.norm(posterior)
    return float(off), float(spread)


EXACT = {
    "pigdm": (ISOTROPIC, PseudoInverseGuidance(operator, NOISE, data_std=STD), STD**2 * np.eye(D)),
    "mmps": (ISOTROPIC, MomentMatchingGuidance(operator, NOISE), STD**2 * np.eye(D)),
    "mmps-correlated": (CORRELATED, MomentMatchingGuidance(operator, NOISE), COVARIANCE),
}


@pytest.mark.parametrize("name", EXACT)
@pytest.mark.parametrize("sampler", [DDIMSampler(), DDPMSampler()], ids=["ddim", "ddpm"])
def test_samples_have_the_posteriors_moments(name, sampler, getkey):
    denoiser, guidance, covariance = EXACT[name]
    off, spread = errors(denoiser, guidance, covariance, getkey(), sampler)
    assert off < 0.03, off
    assert spread < 0.05, spread


class Unguided(MomentMatchingGuidance):
    """Takes the measurement and leaves it."""

    def __call__(self, denoiser, x, level, cond):
        return denoiser(x, level)


BROKEN = {
    "unguided": Unguided(operator),
    "noise": MomentMatchingGuidance(operator, 3 * NOISE),
    "iterations": MomentMatchingGuidance(operator, NOISE, iterations=1),
    "spread": PseudoInverseGuidance(operator, NOISE, data_std=2 * STD),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_guidance_has_others(name, getkey):
    off, spread = errors(CORRELATED, BROKEN[name], COVARIANCE, getkey())
    assert off > 0.1 or spread > 0.1, (off, spread)


def test_dps_finds_the_posteriors_mean_roughly(getkey):
    """Much nearer to it than the prior's, yet a third of a standard deviation away."""
    key = getkey()
    off, _ = errors(CORRELATED, DPSGuidance(operator, 5.0), COVARIANCE, key)
    unguided, _ = errors(CORRELATED, Unguided(operator), COVARIANCE, key)
    assert off < 0.25 * unguided, (off, unguided)


@pytest.mark.parametrize("method", [PseudoInverseGuidance, MomentMatchingGuidance])
def test_an_exact_measurement_is_obeyed(method, getkey):
    drawn = sample(
        ISOTROPIC,
        DDIMSampler(),
        (D,),
        count=64,
        steps=100,
        key=getkey(),
        guidance=method(operator, 0.0),
        cond=MEASURED,
    )
    assert float(jnp.abs(operator(drawn) - VALUE[None]).max()) < 0.02


def test_each_example_has_its_own_measurement(getkey):
    """Also inside of classifier-free guidance, which doubles the batch.

    Another number of them is refused.
    """
    values = jnp.asarray(np.stack([VALUE, VALUE + 0.5]), jnp.float32)
    guidance = MomentMatchingGuidance(operator, NOISE)

    @eqx.filter_jit
    def x0(guidance, x, cond):
        return Guided(CORRELATED, guidance)(x, 0.4, cond).x0

    x = jax.random.normal(getkey(), (2, D))
    both = x0(guidance, x, {"measurement": values})
    for i in range(2):
        alone = x0(guidance, x[i : i + 1], {"measurement": values[i : i + 1]})
        np.testing.assert_allclose(both[i], alone[0], atol=1e-5)
    labelled = eqx.tree_at(lambda d: d.null, CORRELATED, -1, is_leaf=lambda leaf: leaf is None)
    cond = {"measurement": values, "label": jnp.zeros(2, jnp.int32)}
    doubled = Guided(labelled, (guidance, ClassifierFreeGuidance(2.0)))(x, 0.4, cond).x0
    np.testing.assert_allclose(doubled, both, atol=1e-5)
    with pytest.raises(
        ValueError, match=r"measurement has shape \(2, 3\), but the operator makes \(3, 3\)"
    ):
        x0(guidance, jax.random.normal(getkey(), (3, D)), {"measurement": values})
    with pytest.raises(ValueError, match=r"cond\['measurement'\] has 2 entries, but 3 examples"):
        sample(
            CORRELATED,
            DDIMSampler(),
            (D,),
            count=3,
            steps=2,
            key=getkey(),
            guidance=guidance,
            cond={"measurement": values},
        )
    with pytest.raises(ValueError, match=r"needs cond\['measurement'\]"):
        x0(guidance, x, None)


def test_guidance_outside_of_clipping_is_refused():
    with pytest.raises(ValueError, match="must stand inside of Clipping"):
        Guided(CORRELATED, (Clipping(), MomentMatchingGuidance(operator)))


@pytest.mark.parametrize("method", [DPSGuidance, PseudoInverseGuidance, MomentMatchingGuidance])
def test_a_start_without_signal_is_finite(method, getkey):
    prior = correlated(MEAN, COVARIANCE, FlowSchedule())
    drawn = sample(
        prior,
        DDIMSampler(),
        (D,),
        count=100,
        steps=100,
        key=getkey(),
        guidance=method(operator),
        cond=MEASURED,
    )
    assert bool(jnp.isfinite(drawn).all())


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
