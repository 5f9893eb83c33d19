"""Samplers against exact answers: known distributions and the exact solution of the ODE."""

from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special, stats

from diffusion_eqx.denoiser import GaussianDenoiser, GaussianMixtureDenoiser
from diffusion_eqx.editing import ddim_invert
from diffusion_eqx.samplers import (
    AbstractGrid,
    AbstractOneStepMethod,
    DDIMSampler,
    DDPMSampler,
    FocusedGrid,
    KarrasGrid,
    LeadingGrid,
    LinspaceGrid,
    LogSNRGrid,
    State,
    TrailingGrid,
    UniformGrid,
    sample,
    sample_from,
    trajectory,
)
from diffusion_eqx.samplers.noise import exact_normal, quantile_of_bits
from diffusion_eqx.schedules import DiscreteSchedule, cosine_betas, linear_betas

LINEAR = DiscreteSchedule(linear_betas(1000, 1e-4, 0.02))
COSINE = DiscreteSchedule(cosine_betas(1000))
MEANS = np.array([[0.6, 0.6], [-0.6, 0.5], [0.0, -0.6]])
STDS = np.array([0.12, 0.18, 0.08])
WEIGHTS = np.array([0.5, 0.3, 0.2])
MIXTURE = GaussianMixtureDenoiser(
    *(jnp.asarray(a, jnp.float32) for a in (WEIGHTS, MEANS, STDS)), schedule=COSINE
)


def gaussian(schedule):
    return GaussianDenoiser(jnp.array([0.3, -0.2]), jnp.array([0.3, 0.2]), schedule)


def exact_flow(denoiser, noise):
    """Where the probability-flow ODE takes noise at t = 1, for a Gaussian."""
    one = jnp.asarray(1.0)
    alpha, sigma = denoiser.schedule.alpha(one), denoiser.schedule.sigma(one)
    marginal = jnp.sqrt(alpha**2 * denoiser.std**2 + sigma**2)
    return denoiser.mean + denoiser.std * (sigma * noise - alpha * denoiser.mean) / marginal


def energy_distance(x: np.ndarray, y: np.ndarray) -> float:
    """Mean energy distance (Székely & Rizzo 2013) of the projections on eight directions."""
    angles = np.pi * np.arange(8) / 8
    directions = np.stack([np.cos(angles), np.sin(angles)])
    pairs = zip((x @ directions).T, (y @ directions).T, strict=True)
    return float(np.mean([stats.energy_distance(a, b) for a, b in pairs]))


def true_mixture(count: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    component = rng.choice(3, count, p=WEIGHTS)
    return MEANS[component] + STDS[component, None] * rng.standard_normal((count, 2))


@pytest.mark.parametrize("schedule", [LINEAR, COSINE], ids=["linear", "cosine"])
def test_ddim_is_of_first_order(schedule, getkey):
    denoiser = gaussian(schedule)
    noise = jax.random.normal(getkey(), (64, 2))
    expected = exact_flow(denoiser, noise)
    sampler = DDIMSampler(denoiser, grid=UniformGrid())
    steps = np.array([25, 50, 100, 200])
    errors = [
        float(jnp.abs(sample_from(sampler, noise, steps=int(n), key=getkey()) - expected).max())
        for n in steps
    ]
    order = -np.polyfit(np.log(steps), np.log(errors), 1)[0]
    assert 0.85 < order < 1.2, f"errors {errors}"


class Broken(AbstractOneStepMethod):
    """A sampler with one deliberate fault: `noise` is 1.05 times too strong, or sigma is of the wrong
    time (`sigma`)."""

    denoiser: GaussianMixtureDenoiser
    fault: str = eqx.field(static=True)
    grid: AbstractGrid = TrailingGrid()

    renoises: ClassVar[bool] = True

    def step(self, state, index, steps, cond=None) -> State:
        if self.fault == "noise":
            sampler = DDPMSampler(self.denoiser, self.grid, temperature=1.05)
            return sampler.step(state, index, steps, cond)
        t, s = self.times(index, steps)
        x0, eps, _ = self.denoiser(state.x, t, cond)
        schedule = self.denoiser.schedule
        sigma = schedule.sigma(jnp.where(index + 1 < steps, t, s))
        return State(schedule.alpha(s) * x0 + sigma * eps, state.keys)


COUNT = 100_000


@pytest.fixture(scope="module")
def threshold():
    """An energy distance that true samples practically never exceed."""
    among_true = [
        energy_distance(true_mixture(COUNT, 2 * i), true_mixture(COUNT, 2 * i + 1))
        for i in range(12)
    ]
    return np.mean(among_true) + 4 * np.std(among_true)


def distance(sampler, key) -> float:
    drawn = np.asarray(sample(sampler, (2,), count=COUNT, steps=300, key=key))
    return energy_distance(drawn, true_mixture(COUNT, 1000))


@pytest.mark.parametrize(
    "sampler",
    [
        DDPMSampler(MIXTURE),
        DDPMSampler(MIXTURE, variance="large"),
        DDIMSampler(MIXTURE),
    ],
    ids=["ddpm", "ddpm-large", "ddim"],
)
def test_samples_of_a_mixture_match_it(sampler, threshold, getkey):
    found = distance(sampler, getkey())
    assert found < threshold, f"{found} of {threshold}"


@pytest.mark.parametrize("fault", ["noise", "sigma"])
def test_a_broken_sampler_does_not(fault, threshold, getkey):
    found = distance(Broken(MIXTURE, fault), getkey())
    assert found > threshold, f"{found} of {threshold}"


def test_ddpm_equals_ddim_of_eta_one(getkey):
    key = getkey()
    ddpm = sample(DDPMSampler(MIXTURE), (2,), count=64, steps=30, key=key)
    ddim = sample(DDIMSampler(MIXTURE, eta=1.0), (2,), count=64, steps=30, key=key)
    np.testing.assert_allclose(ddpm, ddim, atol=2e-4)


def test_temperature_zero_removes_the_noise(getkey):
    noise = jax.random.normal(getkey(), (16, 2))
    sampler = DDPMSampler(MIXTURE, temperature=0.0)
    first, second = (sample_from(sampler, noise, steps=20, key=getkey()) for _ in range(2))
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("iterations", [1, 5])
def test_inversion_then_sampling_returns_the_input(iterations, getkey):
    """One iteration is wrong by less the more steps there are; a few more are right to rounding."""
    denoiser = gaussian(COSINE)
    sampler = DDIMSampler(denoiser)
    x = denoiser.mean + denoiser.std * jax.random.normal(getkey(), (64, 2))
    x = jnp.clip(x, -1, 1)
    errors = []
    for steps in (25, 50, 100):
        noise = ddim_invert(sampler, x, steps=steps, iterations=iterations)
        returned = sample_from(sampler, noise, steps=steps, key=getkey())
        errors.append(float(jnp.abs(returned - x).max()))
    if iterations == 1:
        assert 0.1 > errors[0] > errors[1] > errors[2]
    else:
        assert max(errors) < 1e-5


def test_inversion_refuses_noise(getkey):
    with pytest.raises(ValueError, match="eta=0"):
        ddim_invert(DDIMSampler(MIXTURE, eta=0.5), jnp.zeros((2, 2)), steps=10)
    with pytest.raises(ValueError, match="iterations"):
        ddim_invert(DDIMSampler(MIXTURE), jnp.zeros((2, 2)), steps=10, iterations=0)


def test_an_image_does_not_depend_on_its_batch(getkey):
    key = getkey()
    sampler = DDIMSampler(MIXTURE, eta=0.7)
    whole = sample(sampler, (2,), count=12, steps=15, key=key)
    parts = [sample(sampler, (2,), count=4, steps=15, key=key, first=f) for f in (0, 4, 8)]
    np.testing.assert_allclose(whole, jnp.concatenate(parts), atol=1e-5)


@pytest.mark.parametrize(
    ("steps", "every", "snapshots"), [(10, 1, 11), (10, 4, 4), (12, 4, 4), (5, 5, 2)]
)
def test_trajectory_ends_with_the_sample(steps, every, snapshots, getkey):
    key = getkey()
    sampler = DDIMSampler(MIXTURE, eta=0.5)
    path = trajectory(sampler, (2,), count=6, steps=steps, every=every, key=key)
    assert path.shape == (snapshots, 6, 2)
    np.testing.assert_allclose(
        path[-1], sample(sampler, (2,), count=6, steps=steps, key=key), atol=1e-6
    )


def test_trajectory_refuses_impossible_intervals(getkey):
    with pytest.raises(ValueError, match="every"):
        trajectory(DDIMSampler(MIXTURE), (2,), count=1, steps=5, every=6, key=getkey())


GRIDS = [
    *(UniformGrid(), TrailingGrid(), LeadingGrid(), LinspaceGrid()),
    *(KarrasGrid(), LogSNRGrid(), FocusedGrid()),
]


@pytest.mark.parametrize("steps", [1, 3, 10, 50, 999, 1000])
@pytest.mark.parametrize("grid", GRIDS)
def test_grids_fall_to_zero(grid, steps):
    index = jnp.arange(steps + 1)
    times = np.asarray(jax.jit(jax.vmap(lambda i: grid(COSINE, i, steps)))(index))
    assert times[-1] == 0.0
    assert 0.0 < times[0] <= 1.0
    assert np.all(np.diff(times) < 0)
    if not isinstance(grid, LeadingGrid):
        assert times[0] == 1.0


def test_grids_accept_traced_steps():
    for grid in GRIDS:
        traced = jax.jit(lambda i, n, grid=grid: grid(COSINE, i, n))(3, 10)
        assert float(traced) == pytest.approx(float(grid(COSINE, 3, 10)), abs=1e-7)


def test_noise_is_normal_to_the_last_quantile():
    rng = np.random.default_rng(0)
    extremes = np.concatenate([np.arange(2000), 2**32 - 1 - np.arange(2000)])
    bits = np.concatenate([rng.integers(0, 2**32, 200_000), extremes]).astype(np.uint32)
    upper_tail = ((bits >> 1).astype(np.float64) + 1) / 2**32
    expected = -special.ndtri(upper_tail) * np.where(bits & 1, -1, 1)
    np.testing.assert_allclose(quantile_of_bits(jnp.asarray(bits)), expected, atol=2e-6)


def test_noise_is_normal_as_a_whole(getkey):
    drawn = np.asarray(exact_normal(getkey(), (200_000,)))
    assert stats.kstest(drawn, "norm").pvalue > 1e-3
    assert abs(np.corrcoef(drawn[:-1], drawn[1:])[0, 1]) < 0.01


def test_noise_is_the_same_compiled_and_not(getkey):
    key = getkey()
    with jax.disable_jit():
        slow = exact_normal(key, (100,))
    np.testing.assert_array_equal(eqx.filter_jit(exact_normal)(key, (100,)), slow)
