"""Guidance: identities that hold exactly, and the orders of wrappers that make sense."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion_eqx.denoiser import AbstractDenoiser, Prediction, as_level
from diffusion_eqx.guidance import (
    AdaptiveProjectedGuidance,
    Autoguidance,
    CFGPlusPlusGuidance,
    ClassifierFreeGuidance,
    ClassifierGuidance,
    Clipping,
    DynamicThresholding,
    Guided,
    find_guidance,
)
from diffusion_eqx.samplers import DDIMSampler, TrailingGrid, sample_from
from diffusion_eqx.schedules import AbstractSchedule, FlowSchedule
from diffusion_eqx.testing import check_guidance, three_gaussians
from tests.catalogue import SCHEDULES

COSINE = SCHEDULES["cosine"]
MIXTURE = three_gaussians(COSINE, spread=0.5)
WEAK = three_gaussians(COSINE, spread=1.0)


def exact_classifier(mixture):
    """log p(component | x_t) up to a constant, by Bayes' rule."""

    def classifier(x, level):
        alpha, sigma = level.alpha[:, None], level.sigma[:, None]
        variance = (alpha * mixture.stds[None]) ** 2 + sigma**2
        offset = x[:, None] - alpha[..., None] * mixture.means[None]
        normal = -0.5 * jnp.sum(offset**2, -1) / variance - jnp.log(variance)
        return jnp.log(mixture.weights)[None] + normal

    return classifier


@pytest.fixture
def point(getkey):
    """Noisy examples, a time for each, and classes."""
    return (
        jax.random.normal(getkey(), (12, 2)),
        jnp.linspace(0.05, 0.95, 12),
        jnp.arange(12, dtype=jnp.int32) % 3,
    )


TWO_BRANCH = {
    "cfg": lambda scale, **more: Guided(MIXTURE, ClassifierFreeGuidance(scale, **more)),
    "apg": lambda scale, **more: Guided(MIXTURE, AdaptiveProjectedGuidance(scale, **more)),
    "auto": lambda scale, **more: Guided(MIXTURE, Autoguidance(WEAK, scale, **more)),
}
two_branch = pytest.mark.parametrize("make", TWO_BRANCH.values(), ids=TWO_BRANCH)


@two_branch
def test_a_scale_of_one_is_the_conditional_prediction_bit_for_bit(make, point):
    found, expected = make(1.0)(*point), MIXTURE(*point)
    np.testing.assert_array_equal(found.x0, expected.x0)
    # The noise follows from x0, which an exact denoiser knows by a formula of its own.
    np.testing.assert_allclose(found.eps, expected.eps, rtol=1e-6)
    assert np.abs(make(1.5)(*point).x0 - expected.x0).max() > 0.01


@two_branch
def test_outside_its_interval_guidance_is_the_conditional_prediction(make, point):
    x, t, cond = point
    found = make(3.0, interval=(0.3, 0.7))(x, t, cond)
    within = np.asarray((t >= 0.3) & (t <= 0.7))
    np.testing.assert_allclose(found.x0[~within], MIXTURE(x, t, cond).x0[~within], atol=1e-6)
    np.testing.assert_allclose(found.x0[within], make(3.0)(x, t, cond).x0[within], atol=1e-6)
    assert 0 < within.sum() < 12


@two_branch
def test_a_scale_may_be_a_function_of_the_level(make, point):
    x, t, cond = point
    found = make(lambda level: 1.0 + 4.0 * level.time)(x, t, cond)
    for i in (0, 5, 11):
        alone = make(1.0 + 4.0 * t[i])(x[i : i + 1], t[i], cond[i : i + 1])
        np.testing.assert_allclose(found.x0[i], alone.x0[0], atol=1e-5)


def test_autoguidance_is_its_formula(point):
    strong, weak = MIXTURE(*point), WEAK(*point)
    found = Guided(MIXTURE, Autoguidance(WEAK, 2.5))(*point)
    for name in ("x0", "eps"):
        expected = getattr(weak, name) + 2.5 * (getattr(strong, name) - getattr(weak, name))
        np.testing.assert_allclose(getattr(found, name), expected, atol=1e-4)


def deviation(x):
    return np.std(np.asarray(x), axis=1)


def test_rescaling_restores_the_standard_deviation(point):
    conditional, plain = MIXTURE(*point).x0, Guided(MIXTURE, ClassifierFreeGuidance(4.0))(*point).x0
    whole = Guided(MIXTURE, ClassifierFreeGuidance(4.0, rescale=1.0))(*point).x0
    half = Guided(MIXTURE, ClassifierFreeGuidance(4.0, rescale=0.5))(*point).x0
    np.testing.assert_allclose(deviation(whole), deviation(conditional), rtol=1e-4)
    np.testing.assert_allclose(half, 0.5 * (whole + plain), atol=1e-5)
    assert np.abs(deviation(plain) - deviation(conditional)).max() > 0.05
    # Direction and scale of 1 stay.
    np.testing.assert_allclose(whole[:, 0] * plain[:, 1], whole[:, 1] * plain[:, 0], atol=1e-4)
    one = Guided(MIXTURE, ClassifierFreeGuidance(1.0, rescale=0.7))(*point).x0
    np.testing.assert_allclose(one, conditional, rtol=1e-6)


def test_projected_guidance_is_classifier_free_guidance_if_nothing_is_projected(point):
    plain = Guided(MIXTURE, ClassifierFreeGuidance(3.0))(*point)
    found = Guided(MIXTURE, AdaptiveProjectedGuidance(3.0, norm_threshold=1e6, parallel=1.0))(
        *point
    )
    np.testing.assert_allclose(found.x0, plain.x0, atol=1e-5)


def test_projected_guidance_moves_at_right_angles_and_not_far(point):
    x, t, cond = point
    conditional = MIXTURE(x, t, cond).x0
    difference = conditional - MIXTURE(x, t).x0
    found = Guided(MIXTURE, AdaptiveProjectedGuidance(3.0, norm_threshold=0.1))(x, t, cond).x0
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
    unconditional one.
    """
    noise, cond = jax.random.normal(getkey(), (16, 2)), jnp.arange(16, dtype=jnp.int32) % 3
    strength, steps = 0.6, 12
    guided = CFGPlusPlusGuidance(strength)
    found = sample_from(MIXTURE, DDIMSampler(), noise, steps=steps, cond=cond, guidance=guided)

    grid = TrailingGrid()
    levels = grid(COSINE, jnp.arange(steps + 1), jnp.asarray(steps))
    x = levels.sigma[0] * noise
    for i in range(steps):
        t, s = levels[i], levels[i + 1]
        alpha_bar, alpha_bar_next = t.alpha**2, s.alpha**2
        without, within = MIXTURE(x, t).eps, MIXTURE(x, t, cond).eps
        mixed = without + strength * (within - without)
        x0 = (x - jnp.sqrt(1 - alpha_bar) * mixed) / jnp.sqrt(alpha_bar)
        x = jnp.sqrt(alpha_bar_next) * x0 + jnp.sqrt(1 - alpha_bar_next) * without
    np.testing.assert_allclose(found, x, atol=2e-3)
    # Renoising with the guided eps is another thing.
    plain = ClassifierFreeGuidance(strength)
    other = sample_from(MIXTURE, DDIMSampler(), noise, steps=steps, cond=cond, guidance=plain)
    assert float(jnp.abs(other - x).max()) > 0.05


@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
def test_an_exact_classifier_makes_the_exact_conditional_denoiser(
    schedule: AbstractSchedule, getkey
):
    """score(x_t | y) = score(x_t) + grad log p(y | x_t): at a scale of 1 there is no difference."""
    denoiser = three_gaussians(schedule, spread=0.5)
    labels = jnp.arange(12, dtype=jnp.int32) % 3
    x0, level = denoiser.means[labels], schedule.at(jnp.linspace(0.05, 0.9, 12))
    x = level.noised(x0, jax.random.normal(getkey(), x0.shape))
    guided = Guided(denoiser, ClassifierGuidance(exact_classifier(denoiser), 1.0))
    found = guided(x, level, {"class_label": labels})
    expected = denoiser(x, level, labels)
    np.testing.assert_allclose(found.eps, expected.eps, atol=2e-4)
    np.testing.assert_allclose(found.x0, expected.x0, atol=1e-3)
    assert float(jnp.abs(expected.eps - denoiser(x, level).eps).max()) > 0.1


def test_classifier_guidance_shifts_eps_by_the_scaled_gradient(point):
    x, t, labels = point
    cond = {"class_label": labels}

    def by(scale):
        return Guided(MIXTURE, ClassifierGuidance(exact_classifier(MIXTURE), scale))(x, t, cond).eps

    plain = MIXTURE(x, t)
    guide = [by(scale) for scale in (0.0, 1.0, 3.0)]
    np.testing.assert_allclose(guide[0], plain.eps, atol=1e-5)
    np.testing.assert_allclose(guide[2] - plain.eps, 3.0 * (guide[1] - plain.eps), atol=1e-3)
    later = by(lambda level: jnp.where(level.time > 0.5, 3.0, 0.0))
    late = np.asarray(t > 0.5)
    np.testing.assert_allclose(later[late], guide[2][late], atol=1e-5)
    np.testing.assert_allclose(later[~late], plain.eps[~late], atol=1e-5)


def test_a_classifier_has_no_say_where_there_is_no_signal(getkey):
    denoiser, labels = three_gaussians(FlowSchedule()), jnp.arange(4, dtype=jnp.int32) % 3
    x = jax.random.normal(getkey(), (4, 2))
    guided = Guided(denoiser, ClassifierGuidance(exact_classifier(denoiser), 2.0))
    found = guided(x, 1.0, {"class_label": labels})
    np.testing.assert_array_equal(found.x0, denoiser(x, 1.0).x0)


def test_what_a_guidance_takes_must_be_there(point):
    x, t, labels = point
    guided = Guided(MIXTURE, ClassifierGuidance(exact_classifier(MIXTURE), 1.0))
    for cond, holds in (
        (None, "nothing"),
        (labels, "a bare condition"),
        ({"label": labels}, "label"),
    ):
        with pytest.raises(
            ValueError, match=rf"needs cond\['class_label'\], but cond holds {holds}"
        ):
            guided(x, t, cond)


class Fixed(AbstractDenoiser):
    """Always predicts the same x0, the half of it without a condition."""

    x0: jax.Array
    schedule: AbstractSchedule
    null: int = -1

    def __call__(self, x, level, cond=None) -> Prediction:
        level = as_level(self.schedule, level)
        x0 = jnp.concatenate([self.x0] * (len(x) // len(self.x0)))
        if cond is not None:
            x0 = jnp.where((cond < 0).reshape(-1, *(1,) * (x.ndim - 1)), 0.5, 1.0) * x0
        return Prediction(x0, level.eps(x, x0))


def test_dynamic_thresholding_is_its_law(getkey):
    """Clip to ±s and divide by s, s the percentile of |x0| of each image, but at least 1."""
    x0 = jnp.array([0.5, 3.0])[:, None, None, None] * jax.random.normal(getkey(), (2, 8, 8, 1))
    x0 = x0.at[0].set(jnp.clip(x0[0], -1, 1))
    x, level = jax.random.normal(getkey(), x0.shape), COSINE.at(0.5)
    found = Guided(Fixed(x0, COSINE), DynamicThresholding(0.9))(x, level)
    size = np.maximum(np.quantile(np.abs(x0), 0.9, axis=(1, 2, 3)), 1.0)[:, None, None, None]
    np.testing.assert_allclose(found.x0, np.clip(x0, -size, size) / size, atol=1e-5)
    np.testing.assert_array_equal(found.x0[0], x0[0])
    assert size[1] > 2.0
    assert float(jnp.abs(found.x0).max()) <= 1.0
    np.testing.assert_allclose(level.noised(found.x0, found.eps), x, atol=1e-5)
    with pytest.raises(ValueError, match=r"percentile must be between 0 and 1; got 1\.5"):
        DynamicThresholding(1.5)


@pytest.mark.parametrize("shape", [(8, 8, 1), (1, 1, 1)])
def test_rescaling_a_blank_image_is_finite_and_does_nothing(shape, getkey):
    """Its deviation is 0, by which nothing can be divided; so is that of an image of one pixel."""
    x = jax.random.normal(getkey(), (2, *shape))
    blank = Fixed(jnp.full((2, *shape), -1.0), COSINE)
    cond = jnp.zeros(2, jnp.int32)
    for amount in (0.3, 1.0):
        found = Guided(blank, ClassifierFreeGuidance(3.0, rescale=amount))(x, 0.4, cond)
        plain = Guided(blank, ClassifierFreeGuidance(3.0))(x, 0.4, cond)
        np.testing.assert_allclose(found.x0, plain.x0, atol=1e-6)
    one = Guided(blank, ClassifierFreeGuidance(1.0, rescale=0.7))(x, 0.4, cond)
    np.testing.assert_allclose(one.x0, -1.0, atol=1e-6)


def test_a_gradient_through_rescaling_is_finite_at_a_blank_image(getkey):
    x, cond = jax.random.normal(getkey(), (2, 4, 4, 1)), jnp.zeros(2, jnp.int32)

    def size(x0):
        guided = Guided(Fixed(x0, COSINE), ClassifierFreeGuidance(3.0, rescale=0.5))
        return jnp.sum(guided(x, 0.4, cond).x0)

    assert bool(jnp.isfinite(jax.grad(size)(jnp.full((2, 4, 4, 1), -1.0))).all())


def by_classifier(scale=1.5):
    return ClassifierGuidance(exact_classifier(MIXTURE), scale)


FREE = ClassifierFreeGuidance(2.5)
SENSELESS = {
    "cfg around clipping": ((Clipping(), FREE), "must stand inside"),
    "classifier around thresholding": (
        (DynamicThresholding(), by_classifier()),
        "must stand inside",
    ),
    "cfg around classifier around clipping": (
        (Clipping(), by_classifier(), FREE),
        "must stand inside",
    ),
    "cfg around cfg": ((FREE, FREE), "guide twice"),
    "apg around cfg": ((FREE, AdaptiveProjectedGuidance()), "guide twice"),
    "cfg++ around classifier around cfg": (
        (FREE, by_classifier(), CFGPlusPlusGuidance()),
        "guide twice",
    ),
    "auto around cfg": ((FREE, Autoguidance(WEAK)), "guide twice"),
    "auto around clipping": ((Clipping(), Autoguidance(WEAK)), "must stand inside"),
    "clipping around thresholding": ((DynamicThresholding(), Clipping()), "limited already"),
    "two classifiers": ((by_classifier(), by_classifier()), r"take cond\['class_label'\]"),
    "nothing": ((), "empty tuple"),
}


@pytest.mark.parametrize(("guidance", "message"), SENSELESS.values(), ids=SENSELESS)
def test_orders_without_sense_are_refused(guidance, message):
    with pytest.raises(ValueError, match=message):
        Guided(MIXTURE, guidance)


@pytest.mark.parametrize("carried", [Clipping(), FREE, by_classifier()])
def test_a_weak_model_that_is_guided_is_refused(carried):
    with pytest.raises(ValueError, match="weak model of autoguidance carries"):
        Autoguidance(Guided(WEAK, carried))


def test_a_weak_model_of_another_schedule_is_refused():
    weak = Autoguidance(three_gaussians(SCHEDULES["linear"]))
    with pytest.raises(ValueError, match="another noise schedule than the main one"):
        Guided(MIXTURE, weak)


def test_autoguidance_keeps_its_laws():
    check_guidance(
        Autoguidance(WEAK, 2.5), denoiser=MIXTURE, shape=(2,), cond=jnp.asarray([0, 2], jnp.int32)
    )


def test_an_unknown_guidance_is_refused():
    with pytest.raises(
        ValueError, match=r"unknown guidance 'cgf'; choose one of cfg, cfg\+\+, apg"
    ):
        find_guidance("cgf")
    for made in (lambda: ClassifierFreeGuidance(-1.0), lambda: CFGPlusPlusGuidance(1.5)):
        with pytest.raises(ValueError, match="guidance_scale must be between"):
            made()


def test_guidance_without_a_null_condition_is_refused(point):
    bare = three_gaussians(COSINE)
    bare = type(bare)(bare.weights, bare.means, bare.stds, COSINE, null=None)
    with pytest.raises(ValueError, match=r"needs the condition that stands for none.*null="):
        Guided(bare, FREE)(*point)


@pytest.mark.parametrize("limiter", [Clipping(), DynamicThresholding()])
def test_classifier_inside_and_around_classifier_free_guidance_are_the_same(limiter, point):
    x, t, labels = point
    cond = {"label": labels, "class_label": labels}
    inside = Guided(MIXTURE, (by_classifier(), FREE, limiter))(x, t, cond)
    around = Guided(MIXTURE, (FREE, by_classifier(), limiter))(x, t, cond)
    np.testing.assert_allclose(inside.x0, around.x0, atol=1e-4)
    np.testing.assert_allclose(inside.eps, around.eps, atol=1e-3)
    alone = Guided(MIXTURE, (FREE, limiter))(x, t, labels)
    assert float(jnp.abs(inside.x0 - alone.x0).max()) > 0.05


@pytest.mark.parametrize("inner", [(), (by_classifier(),)])
def test_a_scale_for_each_image_is_that_of_the_image_alone(inner, getkey):
    """A driver takes one number for each example; here as many as there are channels."""
    cond = {"label": jnp.arange(2, dtype=jnp.int32), "class_label": jnp.arange(2, dtype=jnp.int32)}
    cond = cond if inner else cond["label"]
    noise = jax.random.normal(getkey(), (2, 2))

    def drawn(scale):
        guidance = (*inner, ClassifierFreeGuidance(scale))
        return sample_from(MIXTURE, DDIMSampler(), noise, steps=4, cond=cond, guidance=guidance)

    both = drawn(jnp.array([1.0, 3.0]))
    for index, scale in enumerate((1.0, 3.0)):
        np.testing.assert_allclose(both[index], drawn(scale)[index], atol=1e-6)
    assert jnp.abs(both[1] - drawn(1.0)[1]).max() > 1e-2


ILL_NUMBERED = {
    "count": (
        ClassifierFreeGuidance(jnp.ones(3)),
        "guidance_scale has shape \\(3,\\), but 2 examples",
    ),
    "branches": ((by_classifier(jnp.ones(2)), FREE), "within guidance by two branches"),
}


@pytest.mark.parametrize(("guidance", "message"), ILL_NUMBERED.values(), ids=ILL_NUMBERED)
def test_numbers_that_fit_no_example_are_refused(guidance, message):
    cond = {"label": jnp.zeros(2, jnp.int32), "class_label": jnp.zeros(2, jnp.int32)}
    with pytest.raises(ValueError, match=message):
        sample_from(
            MIXTURE, DDIMSampler(), jnp.zeros((2, 2)), steps=2, cond=cond, guidance=guidance
        )


def test_a_number_of_a_sampler_for_each_image_is_refused():
    sampler = DDIMSampler(eta=jnp.ones(2))
    with pytest.raises(ValueError, match="eta has shape \\(2,\\), but is one number"):
        sample_from(MIXTURE, sampler, jnp.zeros((2, 2)), steps=2, key=jax.random.key(0))
