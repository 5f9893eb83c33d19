"""Editing against exact answers: known distributions, round trips, and a network that is no oracle."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from diffusion_eqx_export.lowering import lower

from diffusion_eqx.config import UNetBackboneConfig
from diffusion_eqx.data import digits
from diffusion_eqx.denoiser import Denoiser, GaussianDenoiser, GaussianMixtureDenoiser
from diffusion_eqx.editing import (
    InpaintingSampler,
    begin_index,
    ddim_invert_to,
    edit_by_inversion,
    interpolate,
    sample_multiscale,
    sdedit,
    slerp,
)
from diffusion_eqx.editing.fixed_point import fixed_point
from diffusion_eqx.guidance import ClassifierFreeGuidance
from diffusion_eqx.models.build import build_backbone
from diffusion_eqx.parameterization import VPrediction
from diffusion_eqx.samplers import (
    ClippedSampler,
    DDIMSampler,
    DDPMSampler,
    DEISSampler,
    sample,
    sample_between,
    trajectory,
)
from diffusion_eqx.schedules import DiscreteSchedule, FlowSchedule, cosine_betas
from tests.correlated import CorrelatedGaussianDenoiser, conditional
from tests.filled import filled

COSINE = DiscreteSchedule(cosine_betas(1000))
MIXTURE = GaussianMixtureDenoiser(
    weights=jnp.array([0.5, 0.5]),
    means=jnp.array([[0.6, 0.6], [-0.6, -0.5]]),
    stds=jnp.array([0.1, 0.1]),
    schedule=COSINE,
)
GAUSSIAN = GaussianDenoiser(jnp.array([0.3, -0.2]), jnp.array([0.3, 0.2]), COSINE)


@pytest.fixture(scope="module")
def network():
    """A network that compiles fast, and is no oracle of anything."""
    config = UNetBackboneConfig(hidden_dims=(8,), time_embedding_dim=8, num_classes=10)
    backbone = filled(build_backbone, config, (8, 8))
    return eqx.nn.inference_mode(Denoiser(backbone, COSINE, VPrediction()))


@pytest.fixture(scope="module")
def images():
    return jnp.asarray(digits().images[:4])


# Fixed points

# One eigenvalue beyond −1 for each example, so that x := g(x) leads away.
LINEAR = jnp.array([np.diag([0.95, 0.5, -1.4]), np.diag([0.2, -2.0, 0.9])])


def affine(x):
    return jnp.einsum("bij,bj->bi", LINEAR, x) + 1.0


def test_fixed_points_are_found_where_iteration_diverges():
    """Like GMRES, in about as many steps as there are unknowns, and each example by itself."""
    exact = jnp.linalg.solve(jnp.eye(3) - LINEAR, jnp.ones((2, 3, 1)))[..., 0]
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


def test_one_iteration_is_one_evaluation_and_a_fixed_point_stays(getkey):
    x = jax.random.normal(getkey(), (2, 3))
    np.testing.assert_array_equal(fixed_point(affine, x, iterations=1), affine(x))
    np.testing.assert_array_equal(fixed_point(lambda x: x, x, iterations=5), x)


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


def test_slerp_moves_at_constant_speed_for_each_example(getkey):
    a, b = jnp.array([[1.0, 0.0], [1.0, 0.0]]), jnp.array([[0.0, 1.0], [-0.6, 0.8]])
    for i, whole in enumerate((np.pi / 2, np.arccos(-0.6))):
        for weight in (0.25, 0.5):
            x, y = slerp(a, b, weight)[i]
            assert float(jnp.arctan2(y, x)) == pytest.approx(weight * whole, abs=1e-6)


@pytest.mark.parametrize("tilt", [0.0, 1e-7, 1e-4, 1e-3])
def test_slerp_of_nearly_parallel_vectors_is_the_straight_line(tilt):
    a, b = jnp.array([[1.0, 0.0]]), jnp.array([[1.0, tilt]])
    np.testing.assert_allclose(slerp(a, b, 0.3), 0.7 * a + 0.3 * b, atol=1e-6)
    assert bool(jnp.isfinite(slerp(a, -b, 0.3)).all())
    assert bool(jnp.isfinite(slerp(0.0 * a, b, 0.3)).all())


def test_interpolation_ends_at_the_two_images(network, images):
    path = interpolate(
        DDIMSampler(network),
        images[:2],
        images[2:],
        count=5,
        steps=50,
        iterations=12,
        cond=jnp.array([1, 2]),
    )
    assert path.shape == (5, 2, 8, 8, 1)
    np.testing.assert_allclose(path[0], images[:2], atol=1e-3)
    np.testing.assert_allclose(path[-1], images[2:], atol=1e-3)
    assert float(jnp.abs(path[2] - images[:2]).max()) > 0.1
    with pytest.raises(ValueError, match="at least 2"):
        interpolate(DDIMSampler(network), images, images, count=1, steps=5)


def test_interpolation_stays_within_the_distribution(getkey):
    """On a Gaussian, the way between two samples keeps the samples' distance from the mean."""
    denoiser = GaussianDenoiser(jnp.full(400, 0.2), jnp.full(400, 0.5), COSINE)
    first, second = 0.2 + 0.5 * jax.random.normal(getkey(), (2, 4, 400))
    path = interpolate(DDIMSampler(denoiser), first, second, count=3, steps=50)
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
            DDIMSampler(network),
            images,
            source=labels,
            target=labels,
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
    source, target = jnp.zeros(64, jnp.int32), jnp.ones(64, jnp.int32)
    for guided in (None, ClassifierFreeGuidance(MIXTURE, 1.0, -1)):
        edited = edit_by_inversion(
            DDIMSampler(MIXTURE),
            MIXTURE.means[0] + offset,
            source=source,
            target=target,
            steps=100,
            guided=guided,
        )
        np.testing.assert_allclose(edited, MIXTURE.means[1] + offset, atol=0.02)


def test_partial_inversion_is_that_of_the_grid(images, network):
    with pytest.raises(ValueError, match="0 <= begin < steps"):
        ddim_invert_to(DDIMSampler(network), images, begin=10, steps=10)
    x_t = ddim_invert_to(DDIMSampler(network), images, begin=6, steps=10, iterations=12)
    back = sample_between(
        DDIMSampler(network), x_t, begin=6, end=10, steps=10, key=jax.random.key(0)
    )
    np.testing.assert_allclose(back, images, atol=1e-3)


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
        edited = sdedit(DDPMSampler(denoiser), x, strength=1.0, steps=20, key=key)
        drawn = sample(DDPMSampler(denoiser), (2,), count=16, steps=20, key=key)
        np.testing.assert_allclose(edited, drawn, atol=tolerance)


def test_sdedit_changes_more_with_strength(network, images, getkey):
    key, labels = getkey(), jnp.array([1, 2, 3, 4])
    changes = []
    for strength in (0.1, 0.4, 1.0):
        edited = sdedit(
            DDIMSampler(network), images, strength=strength, steps=20, key=key, cond=labels
        )
        changes.append(float(jnp.mean((edited - images) ** 2)))
    assert changes == sorted(changes)
    assert changes[0] < 0.1 * changes[-1]


def test_sdedit_moves_strangers_into_the_distribution(getkey):
    """An image that no data resembles: more strength brings it nearer to the data's mean."""
    x = jnp.tile(jnp.array([1.5, 1.5]), (1000, 1))
    far = []
    for strength in (0.2, 0.6, 1.0):
        edited = sdedit(DDPMSampler(GAUSSIAN), x, strength=strength, steps=50, key=getkey())
        far.append(float(jnp.abs(edited.mean(0) - GAUSSIAN.mean).max()))
    assert far == sorted(far, reverse=True)
    assert far[-1] < 0.05


# Inpainting

D, KNOWN = 8, 4
COVARIANCE = 0.25 * 0.9 ** np.abs(np.subtract.outer(np.arange(D), np.arange(D)))
CORRELATED = CorrelatedGaussianDenoiser.of(np.zeros(D), COVARIANCE, COSINE)
VALUES = np.array([0.1, 0.3, 0.5, 0.9, 0.0, 0.0, 0.0, 0.0], np.float32)
MASK = (np.arange(D) >= KNOWN).astype(np.float32)


def inpainting(sampler, **fields):
    return InpaintingSampler(sampler, jnp.asarray(VALUES)[None], jnp.asarray(MASK)[None], **fields)


def filling_errors(sampler, key, steps=50) -> tuple[float, float]:
    """How far mean and covariance of what is filled in are from the conditional ones, relatively."""
    drawn = np.asarray(sample(sampler, (D,), count=2000, steps=steps, key=key))[:, KNOWN:]
    matrix = np.eye(D)[:KNOWN]
    mean, covariance = conditional(np.zeros(D), COVARIANCE, matrix, VALUES[:KNOWN], 0.0)
    mean, covariance = mean[KNOWN:], covariance[KNOWN:, KNOWN:]
    return (
        float(np.linalg.norm(drawn.mean(0) - mean) / np.linalg.norm(mean)),
        float(
            np.linalg.norm(np.cov(drawn, rowvar=False) - covariance) / np.linalg.norm(covariance)
        ),
    )


@pytest.mark.parametrize("method", [DDPMSampler, DDIMSampler])
def test_repaint_fills_in_what_fits(method, getkey):
    """The conditional distribution, which replacement alone misses."""
    key = getkey()
    replacement = filling_errors(inpainting(method(CORRELATED)), key)
    repaint = filling_errors(inpainting(method(CORRELATED), resample=10), key)
    jumps = filling_errors(inpainting(method(CORRELATED), resample=10, jump=5), key)
    for better in (repaint, jumps):
        assert better[0] < 0.45 * replacement[0], (replacement, better)
        assert better[1] < replacement[1], (replacement, better)


def test_known_pixels_are_kept_bit_for_bit(network, images, getkey):
    mask = jnp.zeros((1, 8, 8, 1)).at[:, 2:6, 3:7].set(1.0)
    for sampler in (
        ClippedSampler(InpaintingSampler(DDIMSampler(network), images, mask)),
        InpaintingSampler(ClippedSampler(DDPMSampler(network)), images, mask, resample=3, jump=2),
    ):
        path = trajectory(sampler, (8, 8, 1), count=4, steps=10, every=5, key=getkey())
        filled = np.asarray(mask[0, ..., 0]) > 0
        for snapshot in np.asarray(path):
            np.testing.assert_array_equal(snapshot[:, ~filled], np.asarray(images)[:, ~filled])
        assert float(np.abs(path[-1] - images)[:, filled].max()) > 0.1


def test_an_empty_mask_returns_the_images_and_a_full_one_samples(images, network, getkey):
    key = getkey()
    keep = InpaintingSampler(DDIMSampler(network), images, jnp.zeros((1, 1, 1, 1)))
    np.testing.assert_array_equal(sample(keep, (8, 8, 1), count=4, steps=5, key=key), images)
    fill = InpaintingSampler(DDPMSampler(network), images[:1], jnp.ones((1, 8, 8, 1)))
    np.testing.assert_allclose(
        sample(fill, (8, 8, 1), count=3, steps=5, key=key),
        sample(DDPMSampler(network), (8, 8, 1), count=3, steps=5, key=key),
        atol=1e-6,
    )


def test_inpainting_does_not_depend_on_the_batch(getkey):
    key = getkey()
    sampler = inpainting(DDPMSampler(CORRELATED), resample=3, jump=2)
    whole = sample(sampler, (D,), count=6, steps=10, key=key)
    parts = [sample(sampler, (D,), count=3, steps=10, key=key, first=f) for f in (0, 3)]
    np.testing.assert_allclose(whole, jnp.concatenate(parts), atol=1e-5)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: inpainting(DEISSampler(CORRELATED)), "DEISSampler remembers"),
        (lambda: inpainting(ClippedSampler(DEISSampler(CORRELATED))), "DEISSampler remembers"),
        (lambda: inpainting(DDIMSampler(CORRELATED), resample=0), "resample must be"),
        (lambda: inpainting(DDIMSampler(CORRELATED), jump=0), "jump must be"),
        (
            lambda: InpaintingSampler(DDIMSampler(CORRELATED), jnp.ones((2, 8)), jnp.ones((3, 8))),
            "does not fit",
        ),
        (
            lambda: sample(
                InpaintingSampler(DDIMSampler(CORRELATED), jnp.ones((2, 8)), jnp.ones((1, 8))),
                (8,),
                count=3,
                steps=5,
                key=jax.random.key(0),
            ),
            "2 images, but 3",
        ),
    ],
)
def test_wrong_inpainting_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_inpainting_is_exportable_with_steps_chosen_at_run_time():
    sampler = inpainting(DDPMSampler(CORRELATED), resample=3, jump=2)

    def step(x, index, steps):
        state = sampler.resume(x, index, steps, keys=jax.random.split(jax.random.key(0), len(x)))
        following = sampler.step(state, index, steps)
        return [following.x, sampler.finish(following)]

    number = jax.ShapeDtypeStruct((), jnp.int32)
    x = jax.ShapeDtypeStruct((4, D), jnp.float32)
    lower(step, [x, number, number], donated=[], platform="cpu")


# Multi-scale


def smooth_covariance(size: int) -> np.ndarray:
    place = np.stack(np.meshgrid(np.arange(size), np.arange(size)), -1).reshape(-1, 2)
    distance = np.linalg.norm(place[:, None] - place[None], axis=-1)
    return 0.25 * np.exp(-((distance / 4.0) ** 2)) + 0.005 * np.eye(size**2)


def pooling(size: int) -> np.ndarray:
    return np.kron(*[np.kron(np.eye(size // 2), np.full((1, 2), 0.5))] * 2)


def test_coarse_to_fine_keeps_the_distribution(getkey):
    """As well as the fine model alone, from a coarse model of pooled images whose layout it keeps.

    Enlarging alone does not.
    """
    covariance, pool = smooth_covariance(8), pooling(8)
    fine = CorrelatedGaussianDenoiser.of(np.full(64, 0.2), covariance, COSINE)
    coarse = CorrelatedGaussianDenoiser.of(np.full(16, 0.2), pool @ covariance @ pool.T, COSINE)
    stages = [(DDIMSampler(coarse), (4, 4, 1)), (DDIMSampler(fine), (8, 8, 1))]
    key = getkey()
    own = jax.random.fold_in(key, 0)
    layout = np.asarray(sample(stages[0][0], (4, 4, 1), count=8000, steps=50, key=own))

    def judged(stages, strength, key):
        drawn = sample_multiscale(stages, strength=strength, steps=50, count=8000, key=key)
        flat = np.asarray(drawn).reshape(-1, 64)
        assert abs(flat.mean() - 0.2) < 0.02
        error = np.linalg.norm(np.cov(flat, rowvar=False) - covariance)
        return error, np.corrcoef((flat @ pool.T).ravel(), layout.ravel())[0, 1]

    # A key of its own: noise of any shape drawn with one key begins with the same numbers.
    direct, chance = judged(stages[1:], 1.0, getkey())
    refined, kept = judged(stages, 0.7, key)
    enlarged, _ = judged(stages, 0.02, key)
    assert refined < 1.2 * direct
    assert enlarged > 1.5 * direct
    assert abs(chance) < 0.05
    assert kept > 0.5
    with pytest.raises(ValueError, match="at least one stage"):
        sample_multiscale([], strength=0.5, steps=10, count=1, key=key)
