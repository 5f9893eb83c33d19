"""Editing against exact answers: known distributions, round trips, and a network that is no oracle."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion_eqx.config import DDIMConfig, SamplerConfig, UNetBackboneConfig
from diffusion_eqx.data import digits
from diffusion_eqx.denoiser import Denoiser
from diffusion_eqx.editing import (
    InpaintingSampler,
    begin_index,
    ddim_invert,
    ddim_invert_to,
    edit_by_inversion,
    fixed_point,
    inpaint,
    interpolate,
    sample_multiscale,
    sdedit,
    slerp,
)
from diffusion_eqx.exact import (
    CorrelatedGaussianDenoiser,
    GaussianDenoiser,
    GaussianMixtureDenoiser,
)
from diffusion_eqx.guidance import CFGPlusPlusGuidance, ClassifierFreeGuidance, Clipping, Guided
from diffusion_eqx.models import DDIMModel
from diffusion_eqx.parameterizations import VPrediction
from diffusion_eqx.samplers import (
    Bound,
    DDIMSampler,
    DDPMSampler,
    DEISSampler,
    DPMSolverPlusPlusSampler,
    GivenGrid,
    HeunSampler,
    KarrasGrid,
    LeadingGrid,
    LogSNRGrid,
    State,
    TrailingGrid,
    Walk,
    draw,
    find_sampler,
    fit_cond,
    image_keys,
    numbers,
    sample,
    sample_between,
    sample_from,
)
from diffusion_eqx.schedules import (
    DiscreteSchedule,
    EDMSchedule,
    FlowSchedule,
    VESchedule,
    cosine_betas,
    over,
)

# Many programs are compiled here.
pytestmark = pytest.mark.long

COSINE = DiscreteSchedule(cosine_betas(1000))
MIXTURE = GaussianMixtureDenoiser(
    weights=jnp.array([0.5, 0.5]),
    means=jnp.array([[0.6, 0.6], [-0.6, -0.5]]),
    stds=jnp.array([0.1, 0.1]),
    schedule=COSINE,
)
GAUSSIAN = GaussianDenoiser(jnp.array([0.3, -0.2]), jnp.array([0.3, 0.2]), COSINE)


class Network(eqx.Module):
    """One hidden layer of random weights, told of level and class: it compiles fast, and is no oracle."""

    into: jax.Array
    out: jax.Array
    classes: jax.Array

    def __call__(self, x, c_noise, cond, *, key):
        told = jnp.sin(c_noise[:, None] / 300.0) + self.classes[cond]
        return (jnp.tanh(x.reshape(len(x), -1) @ self.into + told) @ self.out).reshape(x.shape)


@pytest.fixture(scope="module")
def network():
    rng = np.random.default_rng(0)
    arrays = (
        jnp.asarray(rng.standard_normal(shape) / 8.0, jnp.float32)
        for shape in ((64, 32), (32, 64), (11, 32))
    )
    return Denoiser(Network(*arrays), COSINE, VPrediction(), null=10)


@pytest.fixture(scope="module")
def images():
    return jnp.asarray(digits().images[:4])


@dataclasses.dataclass(frozen=True)
class Config:
    input_shape: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Drawing:
    """What a model's plan is, to an edit."""

    denoiser: object
    sampler: object
    steps: int
    decode: object
    shape: tuple[int, ...]


def enlarged(x):
    return jnp.repeat(jnp.repeat(x, 2, axis=1), 2, axis=2)


@dataclasses.dataclass(frozen=True)
class Latent:
    """A model of a user's own whose latents are images of half the size."""

    denoiser: object
    recommended: object = DDIMSampler()
    config: Config = Config((8, 8, 1))

    def plan(self, sampler=None, *, steps=None, guidance=None, **numbers):
        assert not numbers
        sampler = self.recommended if sampler is None else sampler
        sampler = find_sampler(sampler) if isinstance(sampler, str) else sampler
        guided = self.denoiser if guidance is None else Guided(self.denoiser, guidance)
        return Drawing(guided, sampler, 20 if steps is None else steps, enlarged, (4, 4, 1))

    def encode(self, images):
        return images[:, ::2, ::2]

    def fit_cond(self, count, labels, cond, plan):
        assert cond is None
        return fit_cond(None if labels is None else {"label": labels}, count)


def latent_model(**fields):
    rng = np.random.default_rng(1)
    means = jnp.asarray(rng.uniform(-0.8, 0.8, (3, 4, 4, 1)), jnp.float32)
    thirds = jnp.full(3, 1.0 / 3.0)
    return Latent(GaussianMixtureDenoiser(thirds, means, jnp.full(3, 0.1), COSINE), **fields)


# What an edit works with


def test_a_denoiser_needs_a_sampler_and_steps(images, network, getkey):
    key = getkey()
    for given in ({"steps": 5}, {"sampler": "ddim"}):
        with pytest.raises(ValueError, match="a denoiser recommends no"):
            sdedit(network, images, 0.5, key=key, **given)


def test_samplers_and_guidance_go_by_name_value_or_number(images, network, getkey):
    """All ways to say the same edit the same."""
    key = getkey()

    def edited(**given):
        return sdedit(network, images, 0.5, steps=6, labels=3, key=key, **given)

    first = edited(sampler=DDIMSampler(0.5), guidance=ClassifierFreeGuidance(3.0), cond={})
    for same in (
        edited(sampler="ddim", guidance="cfg", eta=0.5, guidance_scale=3.0),
        edited(sampler=DDIMSampler(0.5), guidance=3.0),
        edited(sampler=DDIMSampler(), guidance=(ClassifierFreeGuidance(3.0),), eta=0.5),
    ):
        np.testing.assert_allclose(same, first, atol=1e-6)
    assert float(jnp.abs(edited(sampler=DDIMSampler(0.5)) - first).max()) > 1e-3
    with pytest.raises(ValueError, match="no number 'etta'"):
        edited(sampler="ddim", etta=0.5)
    with pytest.raises(ValueError, match="given twice"):
        edited(sampler="ddim", cond={"label": 3})


def test_one_label_is_the_label_of_all(images, network, getkey):
    key = getkey()
    one, each = (
        sdedit(network, images, 0.5, sampler="ddim", steps=6, labels=labels, key=key)
        for labels in (3, [3] * 4)
    )
    np.testing.assert_array_equal(one, each)


def test_a_model_encodes_decodes_and_recommends(images, getkey):
    model, key = latent_model(), getkey()
    edited = sdedit(model, images, 0.5, labels=1, key=key)
    latents = sdedit(
        model.denoiser, images[:, ::2, ::2], 0.5, sampler=DDIMSampler(), steps=20, labels=1, key=key
    )
    np.testing.assert_allclose(edited, enlarged(latents), atol=1e-6)
    noise = ddim_invert(model, images, labels=2)
    assert noise.shape == (4, 4, 4, 1)
    np.testing.assert_array_equal(
        noise, ddim_invert(model.denoiser, images[:, ::2, ::2], steps=20, labels=2)
    )


def test_models_of_the_library_are_edited_in_one_line(images, getkey):
    """By the steps that they recommend, and by the sampler unless it remembers, as this one does."""
    backbone = UNetBackboneConfig(hidden_dims=(8,), time_embedding_dim=8, num_classes=10)
    config = DDIMConfig(
        backbone=backbone,
        input_shape=(8, 8, 1),
        sampler=SamplerConfig(name="dpm++2m", steps=5),
    )
    model, key = DDIMModel(config, key=getkey()), getkey()
    edited = sdedit(model, images, strength=0.6, labels=3, key=key)
    assert edited.shape == images.shape
    mask = jnp.zeros((1, 8, 8, 1)).at[:, 2:6, 2:6].set(1.0)
    filled = inpaint(model, images, mask, labels=[1, 2, 3, 4], guidance=2.0, key=key)
    np.testing.assert_array_equal(filled[:, :2], images[:, :2])
    assert float(jnp.abs(filled - images).max()) > 0.1
    noise = ddim_invert(model, images, labels=3)
    grid = DDIMSampler(grid=LogSNRGrid())
    back = model.sample_from(noise, grid, steps=5, labels=3)
    again = edit_by_inversion(model, images, source_labels=3, target_labels=3)
    np.testing.assert_allclose(again, back, atol=1e-5)
    with pytest.raises(ValueError, match="labels lie in"):
        sdedit(model, images, 0.6, labels=12, key=key)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: x[0], r"give a batch, image\[None\]"),
        (lambda x: x[:, :4], r"shape \(8, 8, 1\) each; got a batch of shape \(4, 4, 8, 1\)"),
        (lambda x: (127.5 * (x + 1.0)).astype(jnp.uint8), "floats in .*; got uint8"),
    ],
)
def test_images_that_do_not_fit_are_refused(change, message, images, getkey):
    model, wrong, key = latent_model(), change(images), getkey()
    mask = jnp.ones((1, 8, 8, 1))
    for edit in (
        lambda: sdedit(model, wrong, 0.5, key=key),
        lambda: inpaint(model, wrong, mask, key=key),
        lambda: ddim_invert(model, wrong),
        lambda: edit_by_inversion(model, wrong, source_labels=0, target_labels=1),
        lambda: interpolate(model, wrong, wrong, 3),
    ):
        with pytest.raises(ValueError, match=message):
            edit()


# Fixed points

# One eigenvalue beyond −1 for each example, so that x := g(x) leads away.
LINEAR = jnp.array([np.diag([0.95, 0.5, -1.4]), np.diag([0.2, -2.0, 0.9])], jnp.float32)


def affine(x):
    return jnp.einsum("bij,bj->bi", LINEAR, x) + 1.0


def test_fixed_points_are_found_where_iteration_diverges():
    """Like GMRES, in about as many steps as there are unknowns, and each example by itself."""
    exact = jnp.linalg.solve(jnp.eye(3)[None] - LINEAR, jnp.ones((2, 3, 1)))[..., 0]
    found = fixed_point(affine, jnp.zeros((2, 3)), iterations=8)
    np.testing.assert_allclose(found, exact, rtol=1e-3)
    plain = jnp.zeros((2, 3))
    for _ in range(8):
        plain = affine(plain)
    assert float(jnp.abs(plain - exact).min(axis=0).max()) > 1.0
    alone = fixed_point(
        lambda x: jnp.einsum("bij,bj->bi", LINEAR[1:], x) + 1.0, jnp.zeros((1, 3)), iterations=8
    )
    np.testing.assert_allclose(alone[0], found[1], rtol=1e-4)


def anderson(g, x: np.ndarray, iterations: int, window: int, ridge: float) -> np.ndarray:
    """The same method for one example, by numpy's solver in double precision."""
    values, residuals, best, least = [], [], x, np.inf
    for _ in range(iterations):
        value = g(x)
        values, residuals = [*values, value][-window:], [*residuals, value - x][-window:]
        size = np.sum((value - x) ** 2)
        if size < least:
            best, least = value, size
        r = np.stack(residuals)
        gram = r @ r.T
        gram = gram / (np.trace(gram) / len(r)) + ridge * np.eye(len(r))
        weights = np.linalg.solve(gram, np.ones(len(r)))
        x = (weights / weights.sum()) @ np.stack(values)
    return best


@pytest.mark.parametrize("iterations", [2, 3, 5, 9])
def test_fixed_points_are_those_of_numpys_solver(iterations):
    """A window of 5, full and not, on a function that is not affine."""
    rng = np.random.default_rng(3)
    matrix = 0.9 * np.linalg.qr(rng.standard_normal((12, 12)))[0]
    start = rng.standard_normal((3, 12))

    def g(x):
        return np.cos(x @ matrix) + 0.3 * x

    def g_jax(x):
        return jnp.cos(x @ jnp.asarray(matrix, jnp.float32)) + 0.3 * x

    found = fixed_point(g_jax, jnp.asarray(start, jnp.float32), iterations=iterations)
    for one, begin in zip(np.asarray(found), start, strict=True):
        np.testing.assert_allclose(one, anderson(g, begin, iterations, 5, 1e-6), atol=2e-4)


def test_one_iteration_is_one_evaluation_and_a_fixed_point_stays(getkey):
    x = jax.random.normal(getkey(), (2, 3))
    np.testing.assert_array_equal(fixed_point(affine, x, iterations=1), affine(x))
    np.testing.assert_array_equal(fixed_point(lambda x: x, x, iterations=5), x)
    for wrong in ({"iterations": 0}, {"iterations": 3, "window": 0}):
        with pytest.raises(ValueError, match="must be at least 1"):
            fixed_point(affine, x, **wrong)


# Inversion

GRIDS = {
    "trailing": (COSINE, TrailingGrid()),
    "leading": (COSINE, LeadingGrid()),
    "variance exploding, from a lower sigma": (VESchedule(), KarrasGrid(sigma_max=5.0)),
    "EDM, from a lower sigma": (EDMSchedule(), LogSNRGrid(sigma_max=2.0)),
    "flow, from t = 0.8": (
        FlowSchedule(),
        GivenGrid(tuple(0.8 * (1.0 - i / 30) for i in range(31))),
    ),
}


@pytest.mark.parametrize("name", GRIDS)
def test_inverted_noise_has_the_size_of_the_grids_first_level(name, getkey):
    """That of exact data at the level, over its sigma; and it returns the images."""
    schedule, grid = GRIDS[name]
    std = 0.4
    denoiser = GaussianDenoiser(jnp.zeros(2), jnp.full(2, std), schedule)
    x0 = std * jax.random.normal(getkey(), (4000, 2))
    sampler, steps = DDIMSampler(grid=grid), 30
    noise = ddim_invert(denoiser, x0, sampler=sampler, steps=steps, iterations=8)
    back = sample_from(denoiser, sampler, noise, steps=steps)
    np.testing.assert_allclose(back, x0, atol=1e-4)
    first = grid(schedule, jnp.asarray(0), jnp.asarray(steps))
    wanted = np.sqrt((float(first.alpha) * std) ** 2 + float(first.sigma) ** 2)
    assert float(noise.std()) == pytest.approx(wanted / float(first.sigma), rel=0.12)


def test_inversion_does_not_depend_on_the_batch_and_knows_labels(network, images):
    labels = jnp.array([1, 2, 3, 4])
    whole = ddim_invert(network, images, steps=6, labels=labels)
    alone = ddim_invert(network, images[2:3], steps=6, labels=3)
    np.testing.assert_allclose(alone[0], whole[2], atol=1e-4)
    other = ddim_invert(network, images[2:3], steps=6, labels=5)
    assert float(jnp.abs(other[0] - whole[2]).max()) > 1e-3


def test_partial_inversion_is_that_of_the_grid(images, network):
    for wrong in (-1, 10):
        with pytest.raises(ValueError, match="0 <= begin < steps"):
            ddim_invert_to(network, images, wrong, steps=10)
    given = {"sampler": DDIMSampler(), "steps": 10, "iterations": 12}
    x_t = ddim_invert_to(network, images, 6, **given)
    back = sample_between(network, DDIMSampler(), x_t, begin=6, end=10, steps=10)
    np.testing.assert_allclose(back, images, atol=1e-3)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"sampler": DDIMSampler(eta=0.3)}, "eta=0.0"),
        ({"sampler": "ddim", "eta": 0.3}, "eta=0.0"),
        ({"sampler": HeunSampler()}, "only steps of DDIMSampler .* got HeunSampler"),
        ({"iterations": 0}, "iterations must be at least 1"),
        ({"steps": 1001, "sampler": DDIMSampler()}, "steps must be between 1 and the 1000"),
    ],
)
def test_what_cannot_be_inverted_is_refused(given, message, network, images):
    for edit in (
        lambda **given: ddim_invert(network, images, **given),
        lambda **given: ddim_invert_to(network, images, 0, **given),
        lambda **given: edit_by_inversion(network, images, **given),
        lambda **given: interpolate(network, images, images, 2, **given),
    ):
        with pytest.raises(ValueError, match=message):
            edit(**({"steps": 4} | given))


def test_another_number_compiles_no_new_inversion(images, network):
    """Neither schedule, guidance nor condition is part of the program."""
    traces = []

    class Counted(eqx.Module):
        inner: Network

        def __call__(self, x, c_noise, cond, *, key):
            traces.append(1)
            return self.inner(x, c_noise, cond, key=key)

    counted = eqx.tree_at(lambda d: d.backbone, network, Counted(network.backbone))
    after_first = 0
    for scale, label in ((1.5, 1), (2.5, 2)):
        ddim_invert(counted, images, steps=3, labels=label, guidance=scale)
        after_first = after_first or len(traces)
    assert len(traces) == after_first > 0


# Interpolation


def test_slerp_keeps_the_norm_and_is_symmetric(getkey):
    a, b = (jax.random.normal(getkey(), (5, 3, 2)) for _ in range(2))
    a, b = (7.0 * x / jnp.linalg.norm(x.reshape(5, -1), axis=1)[:, None, None] for x in (a, b))
    for weight in (0.0, 0.2, 0.5, 0.9, 1.0):
        between = slerp(a, b, weight)
        np.testing.assert_allclose(jnp.linalg.norm(between.reshape(5, -1), axis=1), 7.0, rtol=1e-5)
        np.testing.assert_allclose(between, slerp(b, a, 1.0 - weight), atol=1e-5)
    np.testing.assert_allclose(slerp(a, b, 0.0), a, atol=1e-6)
    np.testing.assert_allclose(slerp(a, b, 1.0), b, atol=1e-6)


def test_slerp_moves_at_constant_speed_for_each_example():
    a, b = jnp.array([[1.0, 0.0], [1.0, 0.0]]), jnp.array([[0.0, 1.0], [-0.6, 0.8]])
    for i, whole in enumerate((np.pi / 2, np.arccos(-0.6))):
        for weight in (0.25, 0.5):
            x, y = slerp(a, b, weight)[i]
            assert float(jnp.arctan2(y, x)) == pytest.approx(weight * whole, abs=1e-6)
    each = slerp(a, b, jnp.array([0.25, 0.5]))
    np.testing.assert_array_equal(each[0], slerp(a, b, 0.25)[0])
    np.testing.assert_array_equal(each[1], slerp(a, b, 0.5)[1])


@pytest.mark.parametrize("tilt", [0.0, 1e-7, 1e-4, 1e-3])
def test_slerp_of_nearly_parallel_vectors_is_the_straight_line(tilt):
    a, b = jnp.array([[1.0, 0.0]]), jnp.array([[1.0, tilt]])
    np.testing.assert_allclose(slerp(a, b, 0.3), 0.7 * a + 0.3 * b, atol=1e-6)


@pytest.mark.parametrize("tilt", [0.0, 1e-7, 1e-5])
@pytest.mark.parametrize("shape", [(2,), (7,), (4, 4, 2)])
def test_slerp_of_opposite_vectors_goes_around_zero(tilt, shape, getkey):
    """A half circle: the norm changes evenly, the speed is constant, and both ends are met."""
    a = jax.random.normal(getkey(), (3, *shape))
    b = -2.0 * a * (1.0 + tilt * jax.random.normal(getkey(), a.shape))
    size = np.linalg.norm(np.asarray(a).reshape(3, -1), axis=1)
    for weight in (0.0, 0.25, 0.5, 0.75, 1.0):
        between = np.asarray(slerp(a, b, weight)).reshape(3, -1)
        np.testing.assert_allclose(
            np.linalg.norm(between, axis=1), (1.0 + weight) * size, rtol=1e-3
        )
        cosine = np.sum(between * np.asarray(a).reshape(3, -1), axis=1) / size**2 / (1.0 + weight)
        np.testing.assert_allclose(cosine, np.cos(np.pi * weight), atol=1e-3)
    np.testing.assert_allclose(slerp(a, b, 0.0), a, atol=1e-5)
    np.testing.assert_allclose(slerp(a, b, 1.0), b, atol=1e-3)


@pytest.mark.parametrize("shape", [(1,), (2,), (4, 4, 1)])
def test_slerp_from_zero_and_of_one_coordinate_is_the_straight_line(shape, getkey):
    a = jax.random.normal(getkey(), (2, *shape))
    pairs = [(a, 0.0 * a), (0.0 * a, a), (0.0 * a, 0.0 * a)]
    if shape == (1,):
        pairs += [(a, -a), (a, -3.0 * a)]
    for first, second in pairs:
        for weight in (0.0, 0.3, 1.0):
            straight = (1.0 - weight) * first + weight * second
            np.testing.assert_allclose(slerp(first, second, weight), straight, atol=1e-6)


def test_interpolation_ends_at_the_two_images(network, images):
    path = interpolate(
        network,
        images[:2],
        images[2:],
        5,
        sampler=DDIMSampler(),
        steps=50,
        iterations=12,
        labels=jnp.array([1, 2]),
    )
    assert path.shape == (5, 2, 8, 8, 1)
    np.testing.assert_allclose(path[0], images[:2], atol=1e-3)
    np.testing.assert_allclose(path[-1], images[2:], atol=1e-3)
    assert float(jnp.abs(path[2] - images[:2]).max()) > 0.1
    with pytest.raises(ValueError, match="at least 2"):
        interpolate(network, images, images, 1, steps=5)
    with pytest.raises(ValueError, match="must have one shape"):
        interpolate(network, images, images[:2], 3, steps=5)


def test_interpolation_stays_within_the_distribution(getkey):
    """On a Gaussian, the way between two samples keeps the samples' distance from the mean."""
    denoiser = GaussianDenoiser(jnp.full(400, 0.2), jnp.full(400, 0.5), COSINE)
    first, second = 0.2 + 0.5 * jax.random.normal(getkey(), (2, 4, 400))
    path = interpolate(denoiser, first, second, 3, steps=50)
    assert float(jnp.std(path[1])) == pytest.approx(0.5, rel=0.08)
    # The straight line between them would be too short.
    assert float(jnp.std(0.5 * (first + second))) < 0.4


# Editing by inversion


@pytest.mark.parametrize("strength", [0.3, 1.0])
def test_editing_towards_the_same_condition_changes_nothing(strength, network, images):
    labels = jnp.array([1, 2, 3, 4])
    errors = []
    for iterations in (1, 12):
        returned = edit_by_inversion(
            network,
            images,
            source_labels=labels,
            target_labels=labels,
            sampler=DDIMSampler(),
            steps=50,
            strength=strength,
            iterations=iterations,
        )
        errors.append(float(jnp.abs(returned - images).max()))
    assert errors[0] > 10 * errors[1]
    assert errors[1] < 1e-3, errors


def test_editing_moves_to_the_target_and_keeps_the_rest(getkey):
    """From one component of a mixture to the other: the offset from the mean, in its units, stays."""
    offset = 0.1 * jax.random.normal(getkey(), (64, 2))
    for guidance in (None, ClassifierFreeGuidance(1.0)):
        edited = edit_by_inversion(
            MIXTURE,
            MIXTURE.means[:1] + offset,
            source_labels=0,
            target_labels=jnp.ones(64, jnp.int32),
            steps=100,
            guidance=guidance,
        )
        np.testing.assert_allclose(edited, MIXTURE.means[1:] + offset, atol=0.02)


def test_only_the_way_to_the_target_is_guided(images, network):
    labels = jnp.array([1, 2, 3, 4])
    sampler = DDIMSampler()
    edited = edit_by_inversion(
        network,
        images,
        source_labels=labels,
        target_cond={"label": 7},
        sampler=sampler,
        steps=8,
        strength=0.5,
        guidance="cfg",
        guidance_scale=3.0,
    )
    x = ddim_invert_to(network, images, 4, sampler=sampler, steps=8, labels=labels)
    by_hand = sample_between(
        network,
        sampler,
        x,
        begin=4,
        end=8,
        steps=8,
        cond=jnp.full(4, 7),
        guidance=ClassifierFreeGuidance(3.0),
    )
    np.testing.assert_allclose(edited, by_hand, atol=1e-5)


# SDEdit


def test_strength_is_the_share_of_the_steps():
    assert [begin_index(s, 10) for s in (1.0, 0.5, 0.25, 0.01)] == [0, 5, 7, 9]
    for wrong in (0.0, -0.1, 1.01):
        with pytest.raises(ValueError, match=r"\(0, 1\]"):
            begin_index(wrong, 10)


def test_sdedit_at_full_strength_is_sampling(getkey):
    """Where the schedule leaves nothing of the image; else up to what it leaves."""
    key, x = getkey(), jnp.full((16, 2), 0.5)
    for schedule, tolerance in ((FlowSchedule(), 1e-6), (COSINE, 1e-2)):
        denoiser = eqx.tree_at(lambda d: d.schedule, GAUSSIAN, schedule)
        edited = sdedit(denoiser, x, 1.0, sampler=DDPMSampler(), steps=20, key=key)
        drawn = sample(denoiser, DDPMSampler(), (2,), count=16, steps=20, key=key)
        np.testing.assert_allclose(edited, drawn, atol=tolerance)


def test_sdedit_changes_more_with_strength(network, images, getkey):
    key, labels = getkey(), jnp.array([1, 2, 3, 4])
    changes = []
    for strength in (0.1, 0.4, 1.0):
        edited = sdedit(network, images, strength, sampler="ddim", steps=20, key=key, labels=labels)
        changes.append(float(jnp.mean((edited - images) ** 2)))
    assert changes == sorted(changes)
    assert changes[0] < 0.1 * changes[-1]


def test_sdedit_moves_strangers_into_the_distribution(getkey):
    """An image that no data resembles: more strength brings it nearer to the data's mean."""
    x = jnp.tile(jnp.array([[1.5, 1.5]]), (1000, 1))
    far = []
    for strength in (0.2, 0.6, 1.0):
        edited = sdedit(GAUSSIAN, x, strength, sampler="ddpm", steps=50, key=getkey())
        far.append(float(jnp.abs(edited.mean(0) - GAUSSIAN.mean).max()))
    assert far == sorted(far, reverse=True)
    assert far[-1] < 0.05


# Inpainting

D, SHOWN = 8, 4
COVARIANCE = 0.25 * 0.9 ** np.abs(np.subtract.outer(np.arange(D), np.arange(D)))
CORRELATED = CorrelatedGaussianDenoiser.of(
    jnp.zeros(D), jnp.asarray(COVARIANCE, jnp.float32), COSINE
)
VALUES = np.array([0.1, 0.3, 0.5, 0.9, 0.0, 0.0, 0.0, 0.0], np.float32)
MASK = (np.arange(D) >= SHOWN).astype(np.float32)
WHAT = {"known": jnp.asarray(VALUES)[None], "known_mask": jnp.asarray(MASK)[None]}


def filling_errors(sampler, key, steps=50, **repetitions) -> tuple[float, float]:
    """How far mean and covariance of what is filled in are from the conditional ones, relatively."""
    images = np.tile(VALUES, (2000, 1))
    given = {"sampler": sampler, "steps": steps, "key": key}
    drawn = np.asarray(inpaint(CORRELATED, images, MASK[None], **given, **repetitions))[:, SHOWN:]
    gain = COVARIANCE[SHOWN:, :SHOWN] @ np.linalg.inv(COVARIANCE[:SHOWN, :SHOWN])
    mean = gain @ VALUES[:SHOWN]
    covariance = COVARIANCE[SHOWN:, SHOWN:] - gain @ COVARIANCE[:SHOWN, SHOWN:]
    off = np.cov(drawn, rowvar=False) - covariance
    return (
        float(np.linalg.norm(drawn.mean(0) - mean) / np.linalg.norm(mean)),
        float(np.linalg.norm(off) / np.linalg.norm(covariance)),
    )


@pytest.mark.parametrize("method", [DDPMSampler(), DDIMSampler()], ids=["ddpm", "ddim"])
def test_repaint_fills_in_what_fits(method, getkey):
    """The conditional distribution, which replacement alone misses."""
    key = getkey()
    replacement = filling_errors(method, key)
    repaint = filling_errors(method, key, resample=10)
    jumps = filling_errors(method, key, resample=10, jump=5)
    for better in (repaint, jumps):
        assert better[0] < 0.45 * replacement[0], (replacement, better)
        assert better[1] < replacement[1], (replacement, better)


def test_known_pixels_are_kept_bit_for_bit(network, images, getkey):
    mask = np.zeros((1, 8, 8, 1), bool)
    mask[:, 2:6, 3:7] = True
    filled = mask[0, ..., 0]
    for given in (
        {"sampler": DDIMSampler(), "guidance": Clipping()},
        {"sampler": DDPMSampler(), "resample": 3, "jump": 2, "labels": 3, "guidance": 2.0},
        {"sampler": DDIMSampler(), "guidance": CFGPlusPlusGuidance(0.6), "labels": [1, 2, 3, 4]},
    ):
        found = inpaint(network, images, mask, steps=10, key=getkey(), **given)
        np.testing.assert_array_equal(found[:, ~filled], images[:, ~filled])
        assert float(jnp.abs(found - images)[:, filled].max()) > 0.1


def test_the_sampler_itself_keeps_what_is_known(network, images, getkey):
    """Before any face restores it: the replacement at the clean level is exact."""
    mask = jnp.zeros((1, 8, 8, 1)).at[:, 2:6, 3:7].set(1.0)
    cond = {"known": images, "known_mask": mask, "label": jnp.array([1, 2, 3, 4])}
    for sampler in (InpaintingSampler(DDIMSampler()), InpaintingSampler(DDPMSampler(), 3, 2)):
        found = sample(network, sampler, (8, 8, 1), count=4, steps=6, key=getkey(), cond=cond)
        kept = np.asarray(mask[0, ..., 0]) == 0.0
        np.testing.assert_array_equal(found[:, kept], images[:, kept])


def test_an_empty_mask_returns_the_images_and_a_full_one_samples(images, network, getkey):
    key = getkey()
    given = {"sampler": DDPMSampler(), "steps": 5, "key": key}
    kept = inpaint(network, images, jnp.zeros((1, 1, 1, 1)), **given)
    np.testing.assert_array_equal(kept, images)
    np.testing.assert_allclose(
        inpaint(network, images, jnp.ones((4, 8, 8, 1)), **given),
        sample(network, DDPMSampler(), (8, 8, 1), count=4, steps=5, key=key),
        atol=1e-6,
    )


def test_each_image_has_its_own_mask_or_all_have_one(images, network, getkey):
    key = getkey()
    one = jnp.zeros((1, 8, 8, 1)).at[:, 4:].set(1.0)
    given = {"sampler": DDIMSampler(), "steps": 5, "key": key}
    for_all = inpaint(network, images, one, **given)
    np.testing.assert_array_equal(
        for_all, inpaint(network, images, jnp.tile(one, (4, 1, 1, 1)), **given)
    )
    other = jnp.concatenate([one[:, ::-1], one, one, one])
    for_each = inpaint(network, images, other, **given)
    np.testing.assert_allclose(for_each[1:], for_all[1:], atol=1e-6)
    np.testing.assert_array_equal(for_each[0, 4:], images[0, 4:])


def test_latents_are_filled_in_where_a_pixel_is_marked(images, getkey):
    model = latent_model(recommended=DPMSolverPlusPlusSampler())
    mask = np.zeros((1, 8, 8, 1), bool)
    mask[0, 3, 3] = True
    found = np.asarray(inpaint(model, images, mask, labels=1, key=getkey()))
    np.testing.assert_array_equal(np.where(mask, 0.0, found), np.where(mask, 0.0, images))
    assert np.all(found[:, 3, 3] != np.asarray(images)[:, 3, 3])
    # The latent pixel of (3, 3) is that of (2, 2), whose value it would have had if it had been kept.
    assert np.all(found[:, 3, 3] != np.asarray(images)[:, 2, 2])


TWO = GaussianDenoiser(
    jnp.linspace(-0.5, 0.5, 8).reshape(2, 2, 2), jnp.linspace(0.1, 0.6, 8).reshape(2, 2, 2), COSINE
)
METHODS = {
    "ddim": DDIMSampler(),
    "ddim, eta 0.7": DDIMSampler(0.7),
    "ddpm": DDPMSampler(),
    "heun with churn": HeunSampler(churn=5.0, grid=KarrasGrid()),
    "dpm++2s": find_sampler("dpm++2s"),
    "predictor-corrector": find_sampler("predictor-corrector"),
}


@pytest.mark.parametrize("name", METHODS)
def test_two_images_of_two_channels_are_each_as_alone(name, getkey):
    """A number for each image must not be taken for one for each channel, where both are two."""
    key, x0 = getkey(), jax.random.normal(getkey(), (2, 2, 2, 2))
    mask = jnp.zeros((2, 2, 2, 2)).at[0, 0].set(1.0).at[1, :, 1].set(1.0).at[1, 0, 0, 1].set(1.0)
    sampler = InpaintingSampler(METHODS[name], resample=3, jump=2)
    cond = {"known": x0, "known_mask": mask}
    whole = sample(TWO, sampler, (2, 2, 2), count=2, steps=6, key=key, cond=cond)
    for k in range(2):
        own = {"known": x0[k : k + 1], "known_mask": mask[k : k + 1]}
        alone = sample(TWO, sampler, (2, 2, 2), count=1, steps=6, key=key, cond=own, first=k)
        np.testing.assert_allclose(whole[k], alone[0], atol=1e-5)


@pytest.mark.parametrize("name", ["ddim, eta 0.7", "heun with churn", "predictor-corrector"])
def test_images_at_different_steps_are_each_as_alone(name, getkey):
    """Each with its own number of steps, and one admitted two rounds after the other."""
    key, x0 = getkey(), jax.random.normal(getkey(), (2, 2, 2, 2))
    mask = jnp.zeros((2, 2, 2, 2)).at[0, 0].set(1.0).at[1, :, 1].set(1.0)
    sampler = InpaintingSampler(METHODS[name], resample=2, jump=2)
    denoise = Bound(TWO, {"known": x0, "known_mask": mask})
    steps, late = jnp.array([6, 4]), jnp.array([0, 2])
    walk = Walk(sampler.grid, TWO.schedule, steps)
    keys = image_keys(key, 2)
    x = walk[jnp.zeros(2, jnp.int32)].over(x0).sigma * draw(keys, 0, (2, 2, 2))
    state = sampler.begin(denoise, walk, x, jnp.zeros(2, jnp.int32), keys=keys)

    def round_(number, state):
        live = (number >= late) & (state.index < steps)
        index = jnp.minimum(state.index, steps - 1)
        moved = sampler.advance(denoise, walk, State(state.x, keys, index, steps, state.memory))
        x = jnp.where(over(live, state.x), moved.x, state.x)
        return State(x, keys, jnp.where(live, moved.index, state.index), steps, state.memory)

    found = jax.jit(lambda state: jax.lax.fori_loop(0, 6, round_, state).x)(state)
    for k, own_steps in enumerate((6, 4)):
        cond = {"known": x0[k : k + 1], "known_mask": mask[k : k + 1]}
        given = {"count": 1, "steps": own_steps, "key": key, "cond": cond, "first": k}
        alone = sample(TWO, sampler, (2, 2, 2), **given)
        np.testing.assert_allclose(found[k], alone[0], atol=1e-5, rtol=1e-5)


def test_inpainting_does_not_depend_on_the_batch(getkey):
    key = getkey()
    sampler = InpaintingSampler(DDPMSampler(), resample=3, jump=2)
    whole = sample(CORRELATED, sampler, (D,), count=6, steps=10, key=key, cond=WHAT)
    parts = [
        sample(CORRELATED, sampler, (D,), count=3, steps=10, key=key, first=f, cond=WHAT)
        for f in (0, 3)
    ]
    np.testing.assert_allclose(whole, jnp.concatenate(parts), atol=1e-5)


def test_repetitions_draw_noise_of_their_own(getkey):
    """Repetitions of independent coordinates leave their distribution as it is, but not each of them."""
    wide = GaussianDenoiser(jnp.zeros(1000), jnp.ones(1000), COSINE)
    cond = {"known": jnp.zeros((1, 1000)), "known_mask": jnp.zeros((1, 1000)).at[:, :500].set(1.0)}
    given = {"count": 1, "steps": 30, "key": getkey(), "cond": cond}
    once, twice, thrice = (
        sample(wide, InpaintingSampler(DDIMSampler(), n), (1000,), **given)[0, :500]
        for n in (1, 2, 3)
    )
    for one, other in ((once, twice), (twice, thrice)):
        assert float(other.std()) == pytest.approx(1.0, rel=0.1)
        assert abs(float(jnp.corrcoef(one, other)[0, 1])) < 0.9


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: InpaintingSampler(DEISSampler()), "DEISSampler remembers"),
        (lambda: InpaintingSampler(find_sampler("adaptive:Tsit5")), "remembers"),
        (lambda: InpaintingSampler(find_sampler("sde:Euler")), "remembers"),
        (lambda: InpaintingSampler(InpaintingSampler(DDIMSampler())), "goes its own way"),
        (lambda: InpaintingSampler(DDIMSampler(), resample=0), "resample must be"),
        (lambda: InpaintingSampler(DDIMSampler(), jump=0), "jump must be"),
    ],
)
def test_samplers_that_cannot_inpaint_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize(
    ("cond", "message"),
    [
        (None, r"inpainting needs cond\['known'\]"),
        ({"known": jnp.ones((1, 8))}, r"inpainting needs cond\['known_mask'\]"),
        ({"known": jnp.ones((2, 8)), "known_mask": jnp.ones((1, 8))}, "2 entries, but 3"),
        (
            {"known": jnp.ones((1, 7)), "known_mask": jnp.ones((1, 8))},
            r"shape of what is drawn, \(3, 8\)",
        ),
        ({"known": jnp.ones((1, 8)), "known_mask": jnp.ones((1, 7))}, "in place of an axis"),
        ({"known": jnp.ones((1, 8)), "known_mask": jnp.ones(3)}, "in place of an axis"),
    ],
)
def test_what_is_known_must_be_given_and_fit(cond, message):
    sampler, key = InpaintingSampler(DDIMSampler()), jax.random.key(0)
    with pytest.raises(ValueError, match=message):
        sample(CORRELATED, sampler, (8,), count=3, steps=5, key=key, cond=cond)


@pytest.mark.parametrize("shape", [(8, 8, 1), (3, 8, 8, 1), (4, 8, 7, 1), (4, 8, 8, 2)])
def test_masks_that_do_not_fit_are_refused(shape, images, network, getkey):
    with pytest.raises(ValueError, match="does not fit images of shape"):
        inpaint(network, images, jnp.ones(shape), sampler="ddim", steps=3, key=getkey())


def test_an_inpainting_sampler_is_a_value_with_the_numbers_of_the_one_within():
    sampler = InpaintingSampler(DDIMSampler(0.5, grid=LogSNRGrid()), 2)
    assert sampler == InpaintingSampler(DDIMSampler(0.5, grid=LogSNRGrid()), 2)
    assert sampler != InpaintingSampler(DDIMSampler(0.5, grid=LogSNRGrid()), 3)
    assert hash(sampler) == hash(InpaintingSampler(DDIMSampler(0.5, grid=LogSNRGrid()), 2))
    assert set(numbers(sampler)) == {"eta", "temperature"}
    assert sampler.grid == LogSNRGrid()
    other = dataclasses.replace(sampler, grid=KarrasGrid())
    assert other.grid == other.sampler.grid == KarrasGrid()
    # It draws noise even around a sampler that draws none, and so needs a key.
    assert not InpaintingSampler(DDIMSampler()).deterministic
    noise = jnp.ones((2, D))
    with pytest.raises(ValueError, match="give key="):
        sample_from(CORRELATED, InpaintingSampler(DDIMSampler()), noise, steps=3, cond=WHAT)


# Precision


def test_edits_are_of_the_precision_of_the_images():
    """In double precision, where it is switched on, an inverse is exact far beyond float32."""
    with jax.enable_x64(True):
        schedule = FlowSchedule()
        denoiser = GaussianMixtureDenoiser(
            jnp.array([0.5, 0.5]),
            jnp.array([[0.6, 0.6], [-0.6, -0.5]]),
            jnp.array([0.3, 0.3]),
            schedule,
        )
        x0 = jnp.array([[0.5, 0.7], [-0.4, -0.6]])
        assert x0.dtype == jnp.float64
        given = {"sampler": DDIMSampler(), "steps": 20}
        noise = ddim_invert(denoiser, x0, iterations=30, **given)
        back = sample_from(denoiser, DDIMSampler(), noise, steps=20)
        assert back.dtype == jnp.float64
        np.testing.assert_allclose(back, x0, atol=1e-9)
        mask, key = jnp.array([[1.0, 0.0]]), jax.random.key(0)
        for edited in (
            inpaint(denoiser, x0, mask, resample=2, key=key, **given),
            sdedit(denoiser, x0, 0.5, key=key, **given),
            slerp(x0, -x0, 0.5),
        ):
            assert edited.dtype == jnp.float64
            assert bool(jnp.isfinite(edited).all())


# Programs


def program(function, *shapes) -> str:
    """The StableHLO of an exported function."""
    arrays = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
    return jax.export.export(jax.jit(function), platforms=["cpu"])(*arrays).mlir_module()


@pytest.mark.parametrize(
    "edit",
    [
        lambda x: ddim_invert(MIXTURE, x, steps=4, iterations=1),
        lambda x: interpolate(MIXTURE, x, x[::-1], 3, steps=4),
        lambda x: edit_by_inversion(MIXTURE, x, source_labels=0, target_labels=1, steps=4),
        lambda x: sdedit(MIXTURE, x, 0.5, sampler="ddpm", steps=4, key=jax.random.key(0)),
        lambda x: inpaint(
            MIXTURE, x, x > 0.0, resample=2, sampler="ddpm", steps=4, key=jax.random.key(0)
        ),
    ],
    ids=["invert", "interpolate", "edit", "sdedit", "inpaint"],
)
def test_edits_are_exported_without_custom_calls(edit):
    """A custom call, such as one of LAPACK, runs on no device but the one that it is written for."""
    text = program(edit, (4, 2))
    assert "stablehlo.while" in text
    assert "stablehlo.custom_call" not in text


def test_inpainting_is_exported_with_steps_chosen_at_run_time():
    sampler = InpaintingSampler(DDPMSampler(), resample=3, jump=2)

    def step(x, index, steps, mask):
        denoise = Bound(CORRELATED, {"known": x, "known_mask": mask})
        walk = Walk.of(sampler.grid, CORRELATED.schedule, steps)
        keys = jax.random.split(jax.random.key(0), len(x))
        return sampler.advance(denoise, walk, State(x, keys, index, steps)).x

    number = jax.ShapeDtypeStruct((), jnp.int32)
    x = jax.ShapeDtypeStruct((4, D), jnp.float32)
    exported = jax.export.export(jax.jit(step), platforms=["cpu"])(x, number, number, x)
    assert "stablehlo.custom_call" not in exported.mlir_module()


# Multi-scale


def smooth_covariance(size: int) -> np.ndarray:
    place = np.stack(np.meshgrid(np.arange(size), np.arange(size)), -1).reshape(-1, 2)
    distance = np.linalg.norm(place[:, None] - place[None], axis=-1)
    return 0.25 * np.exp(-((distance / 4.0) ** 2)) + 0.005 * np.eye(size**2)


def pooling(size: int) -> np.ndarray:
    return np.kron(*[np.kron(np.eye(size // 2), np.full((1, 2), 0.5))] * 2)


def gaussian_images(covariance: np.ndarray) -> CorrelatedGaussianDenoiser:
    size = round(len(covariance) ** 0.5)
    mean = jnp.full((size, size, 1), 0.2)
    return CorrelatedGaussianDenoiser.of(mean, jnp.asarray(covariance, jnp.float32), COSINE)


def test_coarse_to_fine_keeps_the_distribution(getkey):
    """As well as the fine denoiser alone, from a coarse one of pooled images whose layout it keeps.

    Enlarging alone does not.
    """
    covariance, pool = smooth_covariance(8), pooling(8)
    fine = gaussian_images(covariance)
    coarse = gaussian_images(pool @ covariance @ pool.T)
    key = getkey()
    given = {"count": 8000, "sampler": DDIMSampler(), "steps": 50}
    own = jax.random.fold_in(key, 0)
    layout = np.asarray(sample(coarse, DDIMSampler(), (4, 4, 1), count=8000, steps=50, key=own))

    def judged(sources, strength, key):
        shapes = [(4, 4, 1), (8, 8, 1)][-len(sources) :]
        drawn = sample_multiscale(sources, strength=strength, shapes=shapes, key=key, **given)
        flat = np.asarray(drawn).reshape(-1, 64)
        assert abs(flat.mean() - 0.2) < 0.02
        error = np.linalg.norm(np.cov(flat, rowvar=False) - covariance)
        return error, np.corrcoef((flat @ pool.T).ravel(), layout.ravel())[0, 1]

    # A key of its own: noise of any shape drawn with one key begins with the same numbers.
    direct, chance = judged([fine], 1.0, getkey())
    refined, kept = judged([coarse, fine], 0.7, key)
    plain, _ = judged([coarse, fine], 0.02, key)
    assert refined < 1.2 * direct
    assert plain > 1.5 * direct
    assert abs(chance) < 0.05
    assert kept > 0.5


def test_coarse_to_fine_needs_sources_that_know_their_shape(getkey):
    key = getkey()
    given = {"strength": 0.5, "sampler": "ddim", "steps": 3, "key": key}
    with pytest.raises(ValueError, match="at least one source"):
        sample_multiscale([], 1, **given)
    with pytest.raises(ValueError, match="give shapes="):
        sample_multiscale([GAUSSIAN], 1, **given)
    with pytest.raises(ValueError, match="1 sources, but 2 shapes"):
        sample_multiscale([GAUSSIAN], 1, shapes=[(2,), (4,)], **given)
    drawn = sample_multiscale([latent_model(), latent_model()], 2, labels=1, **given)
    assert drawn.shape == (2, 8, 8, 1)
