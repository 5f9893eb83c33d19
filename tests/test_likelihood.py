"""Likelihoods against closed forms.

The densities are those of the data with the noise of the first timestep, sigma/alpha at 1/T. The closed
forms have that noise too, and the examples are drawn with it.
"""

import dataclasses

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from diffusion_eqx.config import UNetBackboneConfig
from diffusion_eqx.data import digits
from diffusion_eqx.evaluation import bits_per_dim, image_bits_per_dim, likelihood, log_likelihood
from diffusion_eqx.exact import GaussianDenoiser, GaussianMixtureDenoiser
from diffusion_eqx.guidance import CFGPlusPlusGuidance, ClassifierFreeGuidance, Guided
from diffusion_eqx.models import DDIMModel
from diffusion_eqx.schedules import (
    DiscreteSchedule,
    FlowSchedule,
    VESchedule,
    VPSchedule,
    cosine_betas,
    linear_betas,
)
from tests.latent_models import small_latent_model
from tests.perturbed import perturbed

# Many programs are compiled here.
pytestmark = pytest.mark.long

COSINE = DiscreteSchedule(cosine_betas(1000))
SCHEDULES = {
    "linear": DiscreteSchedule(linear_betas(1000, 1e-4, 0.02)),
    "cosine": COSINE,
    "vp": VPSchedule(),
    "ve": VESchedule(),
    "flow": FlowSchedule(),
}
MEAN, STD = np.array([0.3, -0.2]), np.array([0.12, 0.05])
WEIGHTS = np.array([0.5, 0.3, 0.2])
CENTRES = np.array([[0.6, 0.6, 0.1], [-0.6, 0.5, 0.0], [0.0, -0.6, 0.3]])
WIDTHS = np.array([0.12, 0.18, 0.08])
COUNT = 1024
QUICK = {"steps": 10, "probes": 2}


@pytest.fixture
def tiny_config(small_config):
    """A model of 8x8 images whose derivatives compile in seconds."""
    backbone = UNetBackboneConfig(hidden_dims=(8,), time_embedding_dim=8)
    return dataclasses.replace(small_config, backbone=backbone)


def least_noise(schedule) -> float:
    level = schedule.at_timestep(0)
    return float(level.sigma / level.alpha)


def gaussian(schedule):
    """A denoiser, examples of what it should give, and their true bits per dimension."""
    denoiser = GaussianDenoiser(*(jnp.asarray(a, jnp.float32) for a in (MEAN, STD)), schedule)
    std = np.sqrt(STD**2 + least_noise(schedule) ** 2)
    x = MEAN + std * np.random.default_rng(0).standard_normal((COUNT, 2))
    return (
        denoiser,
        jnp.asarray(x, jnp.float32),
        -stats.norm.logpdf(x, MEAN, std).mean(1) / np.log(2),
    )


def mixture(schedule):
    parts = (jnp.asarray(a, jnp.float32) for a in (WEIGHTS, CENTRES, WIDTHS))
    denoiser = GaussianMixtureDenoiser(*parts, schedule=schedule)
    rng = np.random.default_rng(0)
    std = np.sqrt(WIDTHS**2 + least_noise(schedule) ** 2)
    component = rng.choice(3, COUNT, p=WEIGHTS)
    x = CENTRES[component] + std[component, None] * rng.standard_normal((COUNT, 3))
    by_component = stats.norm.logpdf(x[:, None], CENTRES, std[:, None]).sum(-1)
    density = np.log(np.exp(by_component) @ WEIGHTS)
    return denoiser, jnp.asarray(x, jnp.float32), -density / 3 / np.log(2)


def agrees(found, expected) -> bool:
    """To 1 % in the mean, and nowhere far off."""
    mean = float(found.mean)
    worst = np.abs(np.asarray(found.bits_per_dim) - expected).max()
    return abs(mean - expected.mean()) < 0.01 * abs(expected.mean()) and worst < 0.05


@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
@pytest.mark.parametrize("case", [gaussian, mixture])
def test_bits_are_those_of_the_closed_form(case, schedule):
    denoiser, x, expected = case(schedule)
    found = log_likelihood(denoiser, x, probes=None, steps=60)
    assert agrees(found, expected), (float(found.mean), expected.mean())
    np.testing.assert_array_equal(found.probe_error, 0.0)
    np.testing.assert_allclose(
        found.log_likelihood, -found.bits_per_dim * x.shape[1] * np.log(2), rtol=1e-5
    )
    spread = expected.std(ddof=1) / np.sqrt(COUNT)
    assert float(found.standard_error) == pytest.approx(spread, rel=0.01)


def test_the_mean_of_a_gaussian_is_its_entropy():
    denoiser, x, _ = gaussian(COSINE)
    found = log_likelihood(denoiser, x, probes=None, steps=60)
    std = np.sqrt(STD**2 + least_noise(COSINE) ** 2)
    entropy = np.log2(std * np.sqrt(2 * np.pi * np.e)).mean()
    assert abs(float(found.mean) - entropy) < 4 * float(found.standard_error)
    assert float(found.standard_error) < 0.03


@pytest.mark.parametrize("fault", ["no trace", "wrong prior"])
def test_a_broken_likelihood_does_not_agree(fault, monkeypatch):
    denoiser, x, expected = gaussian(COSINE)
    derivatives, log_normal = likelihood._derivatives, likelihood._log_normal
    if fault == "no trace":

        def without_trace(*arguments):
            velocity, parts = derivatives(*arguments)
            return velocity, 0.0 * parts

        monkeypatch.setattr(likelihood, "_derivatives", without_trace)
    else:
        monkeypatch.setattr(likelihood, "_log_normal", lambda y, std: log_normal(y, 1.1 * std))
    # A number of steps that no other test has: compiled functions hold what they were traced with.
    found = log_likelihood(denoiser, x, probes=None, steps=61 if fault == "no trace" else 62)
    assert not agrees(found, expected)


def test_the_noise_of_t_min_is_in_the_density():
    denoiser, x, _ = gaussian(COSINE)
    level = COSINE.at(0.2)
    noise = float(level.sigma / level.alpha)
    found = log_likelihood(denoiser, x, probes=None, t_min=0.2, steps=60)
    std = np.sqrt(STD**2 + noise**2)
    expected = -stats.norm.logpdf(np.asarray(x), MEAN, std).mean(1) / np.log(2)
    np.testing.assert_allclose(found.bits_per_dim, expected, atol=2e-3)


@pytest.mark.parametrize(
    ("solver", "options"),
    [(diffrax.Heun(), {"steps": 300}), (diffrax.Dopri5(), {"steps": 2000, "tolerance": 1e-4})],
    ids=["fixed", "adaptive"],
)
def test_other_solvers_agree_too(solver, options):
    denoiser, x, expected = gaussian(COSINE)
    assert agrees(log_likelihood(denoiser, x, probes=None, solver=solver, **options), expected)


def test_a_solver_that_does_not_arrive_gives_no_number():
    denoiser, x, _ = gaussian(COSINE)
    found = log_likelihood(denoiser, x[:4], probes=None, steps=3, tolerance=1e-6)
    assert np.isnan(found.bits_per_dim).all()


def test_hutchinson_agrees_with_the_exact_trace_within_its_errors(getkey):
    denoiser, x, _ = mixture(COSINE)
    exact = log_likelihood(denoiser, x, probes=None, steps=20)
    found = log_likelihood(denoiser, x, key=getkey(), probes=8, steps=20)
    difference = np.asarray(found.bits_per_dim - exact.bits_per_dim)
    error = np.sqrt(np.mean(np.asarray(found.probe_error) ** 2) / COUNT)
    assert 0.0 < error < 0.01
    assert abs(difference.mean()) < 4 * error


def test_the_error_of_the_probes_is_honest(getkey):
    """The same examples again and again with other probes: errors have the size that is claimed.

    The components' centres make the Jacobian far from diagonal; for a diagonal one, random signs would be
    exact and prove nothing. With 16 probes, z-scores have the variance of Student's t, 15/13.
    """
    denoiser, _, _ = mixture(COSINE)
    points = jnp.array([[0.0, 0.0, 0.1], [0.25, 0.1, 0.2], [-0.2, 0.1, 0.1]])
    exact = log_likelihood(denoiser, points, probes=None, steps=20)
    found = log_likelihood(denoiser, jnp.tile(points, (500, 1)), key=getkey(), probes=16, steps=20)
    difference = np.asarray(found.bits_per_dim).reshape(500, 3) - np.asarray(exact.bits_per_dim)
    claimed = np.asarray(found.probe_error).reshape(500, 3)
    assert claimed.min() > 1e-3
    z = difference / claimed
    np.testing.assert_allclose(z.var(axis=0), 15 / 13, rtol=0.3)
    assert np.all(np.abs(z.mean(axis=0)) < 4 * z.std(axis=0) / np.sqrt(500))
    # A claim that is the spread of one probe, not of their mean, would fail the same check.
    assert np.all(np.abs((z / 4).var(axis=0) - 15 / 13) > 0.3 * 15 / 13)


def test_an_example_does_not_depend_on_its_batch(getkey):
    denoiser, x, _ = mixture(COSINE)
    key = getkey()
    whole = log_likelihood(denoiser, x[:8], key=key, steps=10)
    part = log_likelihood(denoiser, x[:3], key=key, steps=10)
    np.testing.assert_allclose(whole.bits_per_dim[:3], part.bits_per_dim, rtol=1e-4)


def test_an_untrained_network_that_gives_zeros_is_a_standard_normal(tiny_config, getkey):
    """v = 0 is the exact prediction for data ~ N(0, I); each pixel of an image then costs what it does
    under a normal of variance 1 (and the least noise), over the interval of its grey level.
    """
    images = digits().images[:4]
    model = DDIMModel(tiny_config, key=getkey())
    found = image_bits_per_dim(model.denoiser, images, key=getkey(), grey_levels=17, **QUICK)
    std = np.sqrt(1.0 + least_noise(COSINE) ** 2)
    edges = np.stack([images - 1 / 16, images + 1 / 16])
    exact = -np.log2(np.diff(stats.norm.cdf(edges, scale=std), axis=0)[0]).mean((1, 2, 3))
    np.testing.assert_allclose(found.bits_per_dim, exact, atol=0.03)
    np.testing.assert_allclose(
        found.log_likelihood, -found.bits_per_dim * 64 * np.log(2), rtol=1e-5
    )


def test_bytes_cost_log2_of_127_and_a_half_more(tiny_config, getkey):
    model, key = DDIMModel(tiny_config, key=getkey()), getkey()
    grey = np.full((4, 8, 8, 1), 128, np.uint8)
    found = image_bits_per_dim(model.denoiser, grey, key=key, **QUICK)
    # The density of N(0, 1) at nearly 0, where one level's width does not matter.
    expected = np.log2(127.5) + np.log2(np.sqrt(2 * np.pi))
    np.testing.assert_allclose(found.bits_per_dim, expected, atol=2e-3)


@pytest.mark.slow
def test_a_network_of_any_weights_has_finite_bits_near_the_exact_ones(tiny_config, getkey):
    model = DDIMModel(tiny_config, key=getkey())
    backbone = perturbed(model.denoiser.backbone, key=getkey(), scale=0.05)
    denoiser = eqx.tree_at(lambda d: d.backbone, model.denoiser, backbone)
    x = jnp.asarray(digits().images[:4])
    exact = log_likelihood(denoiser, x, probes=None, steps=6)
    found = log_likelihood(denoiser, x, key=getkey(), probes=8, steps=6)
    assert np.isfinite(found.bits_per_dim).all()
    assert float(found.probe_error.min()) > 0.0
    z = (found.bits_per_dim - exact.bits_per_dim) / found.probe_error
    assert float(jnp.abs(z).max()) < 5.0, z


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "need a key"),
        ({"key": jax.random.key(0), "probes": 1}, "at least 2"),
        ({"probes": None, "t_min": 0.0}, "t_min"),
        ({"probes": None, "steps": 0}, "steps"),
    ],
)
def test_wrong_calls_are_refused(options, message):
    denoiser, x, _ = gaussian(COSINE)
    with pytest.raises(ValueError, match=message):
        log_likelihood(denoiser, x[:2], **options)


def test_cfg_plus_plus_has_no_likelihood():
    denoiser, x, _ = mixture(COSINE)
    with pytest.raises(ValueError, match=r"CFG\+\+"):
        log_likelihood(Guided(denoiser, CFGPlusPlusGuidance(0.5)), x[:2], probes=None)


def test_a_guided_denoiser_has_the_likelihood_of_its_flow():
    """Of guidance at scale 1, that of the chosen component."""
    denoiser, _, _ = mixture(COSINE)
    guided = Guided(denoiser, ClassifierFreeGuidance(1.0))
    std = np.sqrt(WIDTHS[1] ** 2 + least_noise(COSINE) ** 2)
    x = CENTRES[1] + std * np.random.default_rng(0).standard_normal((16, 3))
    component = jnp.ones(16, jnp.int32)
    found = log_likelihood(guided, jnp.asarray(x, jnp.float32), component, probes=None, steps=60)
    expected = stats.norm.logpdf(x, CENTRES[1], std).sum(-1)
    np.testing.assert_allclose(found.log_likelihood, expected, atol=0.05)


@pytest.mark.parametrize(
    ("images", "options", "message"),
    [
        (np.zeros((1, 8, 8, 1)), {"grey_levels": 1}, "grey_levels"),
        (np.full((1, 8, 8, 1), 255.0), {}, r"\[255, 255\].*127.5"),
        (np.full((1, 8, 8, 1), np.nan), {}, "nan"),
    ],
)
def test_images_that_are_none_are_refused(images, options, message, tiny_config, getkey):
    model = DDIMModel(tiny_config, key=getkey())
    with pytest.raises(ValueError, match=message):
        image_bits_per_dim(model.denoiser, images, key=getkey(), **options)


@pytest.fixture
def labelled_model(tiny_config, getkey):
    """A model of ten classes whose weights mean nothing, but differ by class."""
    backbone = dataclasses.replace(tiny_config.backbone, num_classes=10)
    model = DDIMModel(dataclasses.replace(tiny_config, backbone=backbone), key=getkey())
    noisy = perturbed(model.denoiser.backbone, key=getkey(), scale=0.05)
    return eqx.tree_at(lambda m: m.denoiser.backbone, model, noisy)


def test_bits_of_a_model_do_not_depend_on_how_images_are_batched(labelled_model, getkey):
    images, key = digits().images[:3], getkey()
    labels = np.array([3, 1, 4])
    whole = bits_per_dim(labelled_model, images, key=key, labels=labels, **QUICK)
    parts = bits_per_dim(labelled_model, images, key=key, labels=labels, batch_size=2, **QUICK)
    assert whole.bits_per_dim.shape == (3,)
    np.testing.assert_allclose(parts.bits_per_dim, whole.bits_per_dim, rtol=1e-4)
    np.testing.assert_allclose(parts.probe_error, whole.probe_error, rtol=1e-2)


def test_labels_are_conditions_and_none_is_the_null_condition(labelled_model, getkey):
    images, key = digits().images[:2], getkey()
    found = {
        labels: bits_per_dim(labelled_model, images, key=key, labels=labels, **QUICK).bits_per_dim
        for labels in (None, 3, 7, 10)
    }
    np.testing.assert_allclose(found[None], found[10], rtol=1e-5)
    assert np.abs(found[3] - found[7]).max() > 1e-3
    assert np.abs(found[3] - found[None]).max() > 1e-3


@pytest.mark.parametrize(
    ("images", "options", "message"),
    [
        (np.zeros((0, 8, 8, 1)), {}, "at least one"),
        (np.zeros((2, 8, 6, 1)), {}, r"8, 8, 1.*got \(2, 8, 6, 1\)"),
        (np.zeros((2, 8, 8, 1)), {"labels": [1, 2, 3]}, "one for all 2 images"),
        (np.zeros((2, 8, 8, 1)), {"labels": np.array([0.5, 1.0])}, "integer"),
        (np.zeros((2, 8, 8, 1)), {"labels": 11}, "0 … 9"),
        (np.zeros((2, 8, 8, 1)), {"labels": -1}, "0 … 9"),
        (np.zeros((2, 8, 8, 1)), {"batch_size": 0}, "batch_size"),
    ],
)
def test_images_and_labels_that_do_not_fit_a_model_are_refused(
    images, options, message, labelled_model, getkey
):
    options = {name: np.asarray(o) if name == "labels" else o for name, o in options.items()}
    with pytest.raises(ValueError, match=message):
        bits_per_dim(labelled_model, images, key=getkey(), **options)


def test_models_without_classes_or_pixels_say_so(tiny_config, getkey):
    plain = dataclasses.replace(
        tiny_config, backbone=dataclasses.replace(tiny_config.backbone, num_classes=None)
    )
    images = np.zeros((1, 8, 8, 1))
    with pytest.raises(ValueError, match="unconditional"):
        bits_per_dim(DDIMModel(plain, key=getkey()), images, key=getkey(), labels=1)
    with pytest.raises(ValueError, match="latent"):
        bits_per_dim(small_latent_model(), images, key=getkey())
