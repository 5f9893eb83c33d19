"""Guidance: identities that hold exactly, and the orders of wrappers that make sense."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion_eqx.denoiser import AbstractExactDenoiser, GaussianMixtureDenoiser, Prediction
from diffusion_eqx.guidance import (
    AdaptiveProjectedGuidance,
    Autoguidance,
    CFGPlusPlus,
    ClassifierFreeGuidance,
    ClassifierGuidance,
    ClipDenoised,
    DynamicThresholding,
)
from diffusion_eqx.samplers import (
    DDIMSampler,
    DPMSolverPlusPlus,
    HeunSampler,
    TrailingGrid,
    build_sampler,
    sample_from,
)
from diffusion_eqx.schedules import (
    AbstractSchedule,
    DiscreteSchedule,
    FlowSchedule,
    VESchedule,
    VPSchedule,
    cosine_betas,
    linear_betas,
)

SCHEDULES = {
    "linear": DiscreteSchedule(linear_betas(1000, 1e-4, 0.02)),
    "cosine": DiscreteSchedule(cosine_betas(1000)),
    "vp": VPSchedule(),
    "ve": VESchedule(),
    "flow": FlowSchedule(),
}
COSINE = SCHEDULES["cosine"]
ANY = -1


def mixture(schedule=COSINE, spread=1.0):
    return GaussianMixtureDenoiser(
        jnp.array([0.5, 0.3, 0.2]),
        jnp.array([[0.6, 0.6], [-0.6, 0.5], [0.0, -0.6]]),
        spread * jnp.array([0.12, 0.18, 0.08]),
        schedule,
    )


MIXTURE = mixture()
WEAK = mixture(spread=2.0)


def exact_classifier(mixture):
    """log p(component | x_t) up to a constant, by Bayes' rule."""

    def classifier(x, t):
        alpha, sigma = mixture.schedule.alpha(t)[:, None], mixture.schedule.sigma(t)[:, None]
        variance = (alpha * mixture.stds) ** 2 + sigma**2
        offset = x[:, None] - alpha[..., None] * mixture.means
        normal = -0.5 * jnp.sum(offset**2, -1) / variance - jnp.log(variance)
        return jnp.log(mixture.weights) + normal

    return classifier


@pytest.fixture
def point(getkey):
    """Noisy examples, a time for each, and classes."""
    return jax.random.normal(getkey(), (12, 2)), jnp.linspace(0.05, 0.95, 12), jnp.arange(12) % 3


TWO_BRANCH = {
    "cfg": lambda scale, **more: ClassifierFreeGuidance(MIXTURE, scale, ANY, **more),
    "apg": lambda scale, **more: AdaptiveProjectedGuidance(MIXTURE, scale, ANY, **more),
    "auto": lambda scale, **more: Autoguidance(MIXTURE, WEAK, scale, **more),
}
two_branch = pytest.mark.parametrize("make", TWO_BRANCH.values(), ids=TWO_BRANCH)


@two_branch
def test_a_scale_of_one_is_the_conditional_prediction_bit_for_bit(make, point):
    found, expected = make(1.0)(*point), MIXTURE(*point)
    np.testing.assert_array_equal(found.x0, expected.x0)
    np.testing.assert_array_equal(found.eps, expected.eps)
    assert np.abs(make(1.5)(*point).x0 - expected.x0).max() > 0.01


@two_branch
def test_outside_its_interval_guidance_is_the_conditional_prediction(make, point):
    x, t, cond = point
    found = make(3.0, interval=(0.3, 0.7))(x, t, cond)
    within = np.asarray((t >= 0.3) & (t <= 0.7))
    np.testing.assert_array_equal(found.x0[~within], MIXTURE(x, t, cond).x0[~within])
    np.testing.assert_array_equal(found.x0[within], make(3.0)(x, t, cond).x0[within])
    assert 0 < within.sum() < 12


@two_branch
def test_a_scale_may_be_a_function_of_time(make, point):
    x, t, cond = point
    found = make(lambda t: 1.0 + 4.0 * t)(x, t, cond)
    for i in (0, 5, 11):
        alone = make(1.0 + 4.0 * t[i])(x[i : i + 1], t[i], cond[i : i + 1])
        np.testing.assert_allclose(found.x0[i], alone.x0[0], atol=1e-5)


def test_autoguidance_is_its_formula(point):
    strong, weak = MIXTURE(*point), WEAK(*point)
    found = Autoguidance(MIXTURE, WEAK, 2.5)(*point)
    for name in ("x0", "eps"):
        expected = getattr(weak, name) + 2.5 * (getattr(strong, name) - getattr(weak, name))
        np.testing.assert_allclose(getattr(found, name), expected, atol=1e-4)


def deviation(x):
    return np.std(np.asarray(x), axis=1)


def test_rescaling_restores_the_standard_deviation(point):
    conditional, plain = MIXTURE(*point).x0, ClassifierFreeGuidance(MIXTURE, 4.0, ANY)(*point).x0
    whole = ClassifierFreeGuidance(MIXTURE, 4.0, ANY, rescale=1.0)(*point).x0
    half = ClassifierFreeGuidance(MIXTURE, 4.0, ANY, rescale=0.5)(*point).x0
    np.testing.assert_allclose(deviation(whole), deviation(conditional), rtol=1e-4)
    np.testing.assert_allclose(half, 0.5 * (whole + plain), atol=1e-5)
    assert np.abs(deviation(plain) - deviation(conditional)).max() > 0.05
    # Direction and scale of 1 stay.
    np.testing.assert_allclose(whole[:, 0] * plain[:, 1], whole[:, 1] * plain[:, 0], atol=1e-4)
    one = ClassifierFreeGuidance(MIXTURE, 1.0, ANY, rescale=0.7)(*point).x0
    np.testing.assert_allclose(one, conditional, rtol=1e-6)


def test_projected_guidance_is_classifier_free_guidance_if_nothing_is_projected(point):
    plain = ClassifierFreeGuidance(MIXTURE, 3.0, ANY)(*point)
    found = AdaptiveProjectedGuidance(MIXTURE, 3.0, ANY, norm_threshold=float("inf"), parallel=1.0)(
        *point
    )
    np.testing.assert_allclose(found.x0, plain.x0, atol=1e-5)


def test_projected_guidance_moves_at_right_angles_and_not_far(point):
    x, t, cond = point
    conditional = MIXTURE(x, t, cond).x0
    difference = conditional - MIXTURE(x, t).x0
    found = AdaptiveProjectedGuidance(MIXTURE, 3.0, ANY, norm_threshold=0.1)(x, t, cond).x0
    moved = np.asarray(found - conditional)
    np.testing.assert_allclose((moved * conditional).sum(1), 0.0, atol=1e-5)
    unit = conditional / np.linalg.norm(conditional, axis=1, keepdims=True)
    length = np.linalg.norm(difference, axis=1, keepdims=True)
    short = np.asarray(difference) * np.minimum(1.0, 0.1 / length)
    expected = 2.0 * (short - (short * unit).sum(1, keepdims=True) * unit)
    np.testing.assert_allclose(moved, expected, atol=1e-5)
    assert length.max() > 0.1


def test_cfg_plus_plus_is_its_papers_ddim(getkey):
    """Chung et al. (2025, algorithm 2), written out: x0 from the guided eps, then renoised with the
    unconditional one."""
    noise, cond = jax.random.normal(getkey(), (16, 2)), jnp.arange(16) % 3
    strength, steps = 0.6, 12
    guided = CFGPlusPlus(MIXTURE, strength, ANY)
    found = sample_from(DDIMSampler(guided), noise, steps=steps, key=getkey(), cond=cond)

    grid = TrailingGrid()
    x = COSINE.sigma(jnp.asarray(1.0)) * noise
    for i in range(steps):
        t, s = grid(COSINE, i, steps), grid(COSINE, i + 1, steps)
        alpha_bar, alpha_bar_next = COSINE.alpha(t) ** 2, COSINE.alpha(s) ** 2
        without, within = MIXTURE(x, t).eps, MIXTURE(x, t, cond).eps
        mixed = without + strength * (within - without)
        x0 = (x - jnp.sqrt(1 - alpha_bar) * mixed) / jnp.sqrt(alpha_bar)
        x = jnp.sqrt(alpha_bar_next) * x0 + jnp.sqrt(1 - alpha_bar_next) * without
    np.testing.assert_allclose(found, x, atol=2e-3)
    # Renoising with the guided eps is another thing.
    plain = ClassifierFreeGuidance(MIXTURE, strength, ANY)
    other = sample_from(DDIMSampler(plain), noise, steps=steps, key=getkey(), cond=cond)
    assert float(jnp.abs(other - x).max()) > 0.05


@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
def test_an_exact_classifier_makes_the_exact_conditional_denoiser(
    schedule: AbstractSchedule, getkey
):
    """score(x_t | y) = score(x_t) + grad log p(y | x_t): at a scale of 1 there is no difference."""
    denoiser = mixture(schedule)
    labels = jnp.arange(12) % 3
    x0, t = denoiser.means[labels], jnp.linspace(0.05, 0.9, 12)
    x_t = schedule.perturb(x0, t, jax.random.normal(getkey(), x0.shape))
    found = ClassifierGuidance(denoiser, exact_classifier(denoiser), 1.0, labels)(x_t, t)
    expected = denoiser(x_t, t, labels)
    np.testing.assert_allclose(found.eps, expected.eps, atol=1e-4)
    np.testing.assert_allclose(found.x0, expected.x0, atol=1e-3)
    assert float(jnp.abs(expected.eps - denoiser(x_t, t).eps).max()) > 0.1
    one_class = ClassifierGuidance(denoiser, exact_classifier(denoiser), 1.0, 2)(x_t, t)
    np.testing.assert_allclose(one_class.eps, denoiser(x_t, t, jnp.full(12, 2)).eps, atol=1e-4)


def test_classifier_guidance_shifts_eps_by_the_scaled_gradient(point):
    x, t, labels = point
    classifier = exact_classifier(MIXTURE)
    plain = MIXTURE(x, t)
    guide = [ClassifierGuidance(MIXTURE, classifier, s, labels)(x, t).eps for s in (0.0, 1.0, 3.0)]
    np.testing.assert_allclose(guide[0], plain.eps, atol=1e-5)
    np.testing.assert_allclose(guide[2] - plain.eps, 3.0 * (guide[1] - plain.eps), atol=1e-3)
    later = ClassifierGuidance(MIXTURE, classifier, lambda t: jnp.where(t > 0.5, 3.0, 0.0), labels)
    late = np.asarray(t > 0.5)
    np.testing.assert_allclose(later(x, t).eps[late], guide[2][late], atol=1e-5)
    np.testing.assert_allclose(later(x, t).eps[~late], plain.eps[~late], atol=1e-5)


def test_a_classifier_has_no_say_where_there_is_no_signal(getkey):
    denoiser, labels = mixture(FlowSchedule()), jnp.arange(4) % 3
    x = jax.random.normal(getkey(), (4, 2))
    guided = ClassifierGuidance(denoiser, exact_classifier(denoiser), 2.0, labels)
    np.testing.assert_array_equal(guided(x, jnp.ones(())).x0, denoiser(x, jnp.ones(())).x0)


def test_labels_of_another_batch_are_refused(point):
    x, t, _ = point
    guided = ClassifierGuidance(MIXTURE, exact_classifier(MIXTURE), 1.0, jnp.arange(5) % 3)
    with pytest.raises(ValueError, match="5 labels"):
        guided(x, t)


class Fixed(AbstractExactDenoiser):
    """Always predicts the same x0."""

    x0: jax.Array
    schedule: AbstractSchedule

    def __call__(self, x_t, t, cond=None, *, key=None) -> Prediction:
        return Prediction.from_x0(self.schedule, x_t, t, self.x0)


def test_dynamic_thresholding_is_its_law(getkey):
    """Clip to ±s and divide by s, s the percentile of |x0| of each image, but at least 1."""
    x0 = jnp.array([0.5, 3.0])[:, None, None, None] * jax.random.normal(getkey(), (2, 8, 8, 1))
    x0 = x0.at[0].set(jnp.clip(x0[0], -1, 1))
    x_t, t = jax.random.normal(getkey(), x0.shape), jnp.asarray(0.5)
    found = DynamicThresholding(Fixed(x0, COSINE), 0.9)(x_t, t)
    size = np.maximum(np.quantile(np.abs(x0), 0.9, axis=(1, 2, 3)), 1.0)[:, None, None, None]
    np.testing.assert_allclose(found.x0, np.clip(x0, -size, size) / size, atol=1e-5)
    np.testing.assert_array_equal(found.x0[0], x0[0])
    assert size[1] > 2.0
    assert float(jnp.abs(found.x0).max()) <= 1.0
    alpha, sigma = COSINE.alpha(t), COSINE.sigma(t)
    np.testing.assert_allclose(alpha * found.x0 + sigma * found.eps, x_t, atol=1e-5)
    with pytest.raises(ValueError, match="percentile"):
        DynamicThresholding(MIXTURE, 0.0)


def by_classifier(denoiser, labels=0):
    return ClassifierGuidance(denoiser, exact_classifier(MIXTURE), 1.5, labels)


def free(denoiser):
    return ClassifierFreeGuidance(denoiser, 2.5, ANY)


SENSELESS = {
    "cfg around clipping": (lambda: free(ClipDenoised(MIXTURE)), "must stand inside"),
    "classifier around thresholding": (
        lambda: by_classifier(DynamicThresholding(MIXTURE)),
        "must stand inside",
    ),
    "cfg around classifier around clipping": (
        lambda: free(by_classifier(ClipDenoised(MIXTURE))),
        "must stand inside",
    ),
    "cfg around cfg": (lambda: free(free(MIXTURE)), "guide twice"),
    "apg around cfg": (
        lambda: AdaptiveProjectedGuidance(free(MIXTURE), 2.0, ANY),
        "guide twice",
    ),
    "cfg++ around classifier around cfg": (
        lambda: CFGPlusPlus(by_classifier(free(MIXTURE)), 0.5, ANY),
        "guide twice",
    ),
    "auto around cfg": (lambda: Autoguidance(free(MIXTURE), WEAK, 2.0), "guide twice"),
    "auto around clipping": (
        lambda: Autoguidance(ClipDenoised(MIXTURE), WEAK, 2.0),
        "must stand inside",
    ),
    "clipping around thresholding": (
        lambda: ClipDenoised(DynamicThresholding(MIXTURE)),
        "limited already",
    ),
}


@pytest.mark.parametrize(("make", "message"), SENSELESS.values(), ids=SENSELESS)
def test_orders_without_sense_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("limiter", [ClipDenoised, DynamicThresholding])
def test_classifier_inside_and_around_classifier_free_guidance_are_the_same(limiter, point):
    x, t, cond = point
    inside = limiter(free(by_classifier(MIXTURE, cond)))(x, t, cond)
    around = limiter(by_classifier(free(MIXTURE), cond))(x, t, cond)
    np.testing.assert_allclose(inside.x0, around.x0, atol=1e-4)
    np.testing.assert_allclose(inside.eps, around.eps, atol=1e-3)
    assert float(jnp.abs(inside.x0 - limiter(free(MIXTURE))(x, t, cond).x0).max()) > 0.05


@pytest.mark.parametrize(
    "wrap", [lambda d: d, ClipDenoised, lambda d: ClipDenoised(by_classifier(d))]
)
@pytest.mark.parametrize("sampler", [HeunSampler, DPMSolverPlusPlus])
def test_samplers_that_do_not_renoise_refuse_cfg_plus_plus(sampler, wrap):
    with pytest.raises(ValueError, match=r"CFG\+\+"):
        sampler(wrap(CFGPlusPlus(MIXTURE, 0.5, ANY)))


@pytest.mark.parametrize("name", ["heun", "dpmpp_2m", "dpmpp_3m", "unipc", "deis", "lms"])
def test_the_catalogue_refuses_it_too(name):
    with pytest.raises(ValueError, match=r"CFG\+\+"):
        build_sampler(name, CFGPlusPlus(MIXTURE, 0.5, ANY))
