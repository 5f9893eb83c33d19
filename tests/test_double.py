"""Double precision throughout when jax is set so, and a network in bfloat16 under sampling in single."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion_eqx.denoiser import Denoiser
from diffusion_eqx.exact import GaussianDenoiser
from diffusion_eqx.guidance import (
    AdaptiveProjectedGuidance,
    CFGPlusPlusGuidance,
    ClassifierFreeGuidance,
    ClassifierGuidance,
    Clipping,
    DPSGuidance,
    DynamicThresholding,
    Guided,
    MomentMatchingGuidance,
    PseudoInverseGuidance,
)
from diffusion_eqx.losses import DenoisingLoss, HybridLoss, LogitNormalTimes, MinSNR
from diffusion_eqx.parameterizations import VPrediction
from diffusion_eqx.samplers import sample
from diffusion_eqx.testing import three_gaussians
from tests.catalogue import ADAPTIVE, ALL_SAMPLERS, PARAMETERIZATIONS, SCHEDULES, make_schedules
from tests.test_combinations import refused_pairs

# Many programs are compiled here.
pytestmark = pytest.mark.long


@pytest.fixture
def double():
    with jax.enable_x64(True):
        yield


# The others are drawn in double precision by test_convergence.py, which measures their order there.
@pytest.mark.parametrize("name", ["ddim", "edm", "predictor-corrector", "consistency", *ADAPTIVE])
def test_samplers_in_double_precision(name, double):
    """They stay in it, and give what single precision gives, to its rounding."""
    sampler = {**ALL_SAMPLERS, **ADAPTIVE}[name]
    steps = 200 if sampler.chooses_levels else 12

    def drawn():
        denoiser = three_gaussians(make_schedules()["cosine"])
        return sample(denoiser, sampler, (2,), count=6, steps=steps, key=jax.random.key(0))

    wide = drawn()
    assert wide.dtype == jnp.float64
    with jax.enable_x64(False):
        narrow = drawn()
    assert narrow.dtype == jnp.float32
    # Adaptive steps differ by their rounding, and with them the path of an SDE.
    if name not in ADAPTIVE:
        np.testing.assert_allclose(np.asarray(wide), np.asarray(narrow), atol=2e-3)
    assert bool(jnp.isfinite(wide).all())


def _classifier(x, level):
    return jnp.concatenate([x, x[:, :1] * level.alpha[:, None]], axis=1)


def _first(x):
    return x[:, :1]


GUIDANCES = {
    "cfg": ClassifierFreeGuidance(2.0, rescale=0.5, interval=(0.1, 0.9)),
    "cfg++": CFGPlusPlusGuidance(),
    "apg": AdaptiveProjectedGuidance(),
    "classifier": ClassifierGuidance(_classifier, 2.0),
    "dps": DPSGuidance(_first),
    "pigdm": PseudoInverseGuidance(_first),
    "mmps": MomentMatchingGuidance(_first),
    "clipping": Clipping(),
    "thresholding": DynamicThresholding(0.9),
}


@pytest.mark.parametrize("name", GUIDANCES)
def test_guidance_in_double_precision(name, double):
    def predicted():
        denoiser = Guided(three_gaussians(make_schedules()["linear"]), GUIDANCES[name])
        x = jnp.asarray(np.random.default_rng(0).standard_normal((3, 2)), float)
        labels = jnp.asarray([0, 1, 2], jnp.int32)
        cond = {"label": labels}
        if name == "classifier":
            cond["class_label"] = labels
        if name in ("dps", "pigdm", "mmps"):
            cond["measurement"] = jnp.full((3, 1), 0.3)
        return denoiser(x, jnp.asarray([0.2, 0.5, 0.8]), cond)

    wide = predicted()
    assert wide.x0.dtype == wide.eps.dtype == jnp.float64
    with jax.enable_x64(False):
        narrow = predicted()
    assert narrow.x0.dtype == jnp.float32
    np.testing.assert_allclose(np.asarray(wide.x0), np.asarray(narrow.x0), atol=1e-3)


@pytest.mark.parametrize("name", PARAMETERIZATIONS)
@pytest.mark.parametrize("schedule", ["linear", "zero_snr", "vp", "ve", "edm", "flow"])
def test_schedules_and_parameterizations_in_double_precision(schedule, name, double):
    """The target of x0 gives it back with the digits of double precision."""
    if (schedule, name) in refused_pairs():
        return
    made = make_schedules()[schedule]
    denoiser = Denoiser(lambda *_, key: None, made, PARAMETERIZATIONS[name])
    level = made.at_timestep(jnp.asarray([0, 400, 990]))
    rng = np.random.default_rng(0)
    x0, eps = (jnp.asarray(rng.standard_normal((3, 2))) for _ in range(2))
    x = level.noised(x0, eps)
    predicted = denoiser.prediction(x, level, denoiser.target(x, level, x0))
    assert predicted.x0.dtype == jnp.float64
    np.testing.assert_allclose(predicted.x0, x0, atol=1e-9)


LOSSES = {
    "mse": {"error": "mse", "weight": MinSNR(5.0)},
    "l1": {"error": "l1"},
    "huber": {"error": "huber", "times": LogitNormalTimes()},
    "dropout": {"label_dropout": 0.5},
}


def _network(x, c_noise, cond, *, key):
    return jnp.sin(x) + jnp.cos(c_noise)[:, None] + 0.1 * cond.astype(x.dtype)[:, None]


@pytest.mark.parametrize("name", [*LOSSES, "hybrid"])
def test_losses_in_double_precision(name, double):
    denoiser = Denoiser(_network, make_schedules()["linear"], VPrediction(), null=3)
    x0, labels = jnp.linspace(-1.0, 1.0, 8).reshape(4, 2), jnp.asarray([0, 1, 2, 0], jnp.int32)
    network = _network
    if name == "hybrid":
        loss = HybridLoss(DenoisingLoss(denoiser))

        def network(x, c_noise, cond, *, key):
            return jnp.concatenate([_network(x, c_noise, cond, key=key), jnp.cos(x)], axis=1)

    else:
        loss = DenoisingLoss(denoiser, **LOSSES[name])
    value = loss(network, x0, labels, key=jax.random.key(0))
    assert value.dtype == jnp.float64
    assert bool(jnp.isfinite(value))


def test_a_network_in_half_precision_samples_in_single(double):
    """The exact denoiser's own way: only what a network computes is rounded."""
    with jax.enable_x64(False):
        schedule = SCHEDULES["linear"]
        oracle = GaussianDenoiser(jnp.full(2, 0.3), jnp.full(2, 0.4), schedule)

        class Half(eqx.Module):
            unused: jax.Array

            def __call__(self, x, c_noise, cond, *, key):
                assert x.dtype == self.unused.dtype
                level = schedule.at((c_noise + 1.0) / 1000)
                wide = x.astype(jnp.float32)
                return (
                    level.alpha[:, None] * oracle(wide, level).eps
                    - level.sigma[:, None] * oracle(wide, level).x0
                ).astype(x.dtype)

        def drawn(dtype):
            denoiser = Denoiser(Half(jnp.zeros(1, dtype)), schedule, VPrediction())
            return sample(
                denoiser, ALL_SAMPLERS["unipc"], (2,), count=64, steps=10, key=jax.random.key(0)
            )

        single, half = drawn(jnp.float32), drawn(jnp.bfloat16)
        assert half.dtype == jnp.float32
        off = float(jnp.abs(single - half).max())
        assert 1e-5 < off < 0.05
