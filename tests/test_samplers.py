"""Samplers against exact answers, drivers, noise and grids.

The laws of all samplers are in test_laws.py.
"""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special, stats

from diffusion_eqx.exact import GaussianDenoiser
from diffusion_eqx.guidance import CFGPlusPlusGuidance, ClassifierFreeGuidance, Guided
from diffusion_eqx.samplers import (
    SAMPLERS,
    AbstractSampler,
    BrownianNoise,
    DDIMSampler,
    DDPMSampler,
    DPMSolverPlusPlusSampler,
    FocusedGrid,
    GivenGrid,
    HeunSampler,
    IndependentNoise,
    KarrasGrid,
    LogSNRGrid,
    State,
    UniformGrid,
    UniPCSampler,
    draw,
    exact_normal,
    find_grid,
    find_sampler,
    image_keys,
    numbers,
    quantile_of_bits,
    sample,
    sample_between,
    sample_from,
    trajectory,
    with_grid,
    with_numbers,
)
from diffusion_eqx.testing import count_compiles, three_gaussians, true_samples
from tests.catalogue import SCHEDULES
from tests.mixture_oracle import energy_distance

# Many programs are compiled here.
pytestmark = pytest.mark.long

COSINE = SCHEDULES["cosine"]
MIXTURE = three_gaussians(COSINE, spread=0.5)
COUNT = 100_000


def true_mixture(count: int, seed: int) -> np.ndarray:
    return true_samples(count, seed, spread=0.5)


class Broken(AbstractSampler):
    """A sampler with one deliberate fault: `noise` is 1.05 times too strong, or sigma is of the wrong
    time (`sigma`).
    """

    fault: str = eqx.field(static=True, kw_only=True)

    def step(self, denoise, state, t, s):
        if self.fault == "noise":
            return DDPMSampler(temperature=1.05).step(denoise, state, t, s)
        x0, eps = denoise(state.x, t)
        return state.moved(s.alpha * x0 + jnp.where(s.clean, 0.0, t.sigma) * eps)


@pytest.fixture(scope="module")
def threshold():
    """An energy distance that true samples practically never exceed."""
    among_true = [
        energy_distance(true_mixture(COUNT, 2 * i), true_mixture(COUNT, 2 * i + 1))
        for i in range(12)
    ]
    return np.mean(among_true) + 4 * np.std(among_true)


def distance(sampler, key) -> float:
    drawn = sample(MIXTURE, sampler, (2,), count=COUNT, steps=300, key=key)
    return energy_distance(drawn, true_mixture(COUNT, 1000))


@pytest.mark.parametrize(
    "sampler",
    [DDPMSampler(), DDPMSampler(variance="large"), DDIMSampler()],
    ids=["ddpm", "ddpm-large", "ddim"],
)
def test_samples_of_a_mixture_match_it(sampler, threshold, getkey):
    found = distance(sampler, getkey())
    assert found < threshold, f"{found} of {threshold}"


@pytest.mark.parametrize("fault", ["noise", "sigma"])
def test_a_broken_sampler_does_not(fault, threshold, getkey):
    found = distance(Broken(fault=fault), getkey())
    assert found > threshold, f"{found} of {threshold}"


def test_ddpm_equals_ddim_of_eta_one(getkey):
    key = getkey()
    ddpm = sample(MIXTURE, DDPMSampler(), (2,), count=64, steps=30, key=key)
    ddim = sample(MIXTURE, DDIMSampler(eta=1.0), (2,), count=64, steps=30, key=key)
    np.testing.assert_allclose(ddpm, ddim, atol=2e-4)


def test_temperature_zero_removes_the_noise(getkey):
    noise = jax.random.normal(getkey(), (16, 2))
    sampler = DDPMSampler(temperature=0.0)
    first, second = (sample_from(MIXTURE, sampler, noise, steps=20, key=getkey()) for _ in range(2))
    np.testing.assert_array_equal(first, second)


# Drivers.


def test_an_image_does_not_depend_on_its_batch(getkey):
    key = getkey()
    sampler = DDIMSampler(eta=0.7)
    whole = sample(MIXTURE, sampler, (2,), count=12, steps=15, key=key)
    parts = [sample(MIXTURE, sampler, (2,), count=4, steps=15, key=key, first=f) for f in (0, 4, 8)]
    np.testing.assert_allclose(whole, jnp.concatenate(parts), atol=1e-5)


@pytest.mark.parametrize(
    ("steps", "every", "snapshots"), [(10, 1, 11), (10, 4, 4), (12, 4, 4), (5, 5, 2)]
)
def test_trajectory_ends_with_the_sample(steps, every, snapshots, getkey):
    key = getkey()
    sampler = DDIMSampler(eta=0.5)
    path = trajectory(MIXTURE, sampler, (2,), count=6, steps=steps, every=every, key=key, first=3)
    assert path.shape == (snapshots, 6, 2)
    np.testing.assert_allclose(
        path[-1], sample(MIXTURE, sampler, (2,), count=6, steps=steps, key=key, first=3), atol=1e-6
    )
    begin = COSINE.at(1.0).sigma * draw(image_keys(key, 6, 3), 0, (2,))
    np.testing.assert_allclose(path[0], begin, atol=1e-6)


def test_two_halves_of_a_walk_are_the_whole(getkey):
    noise = jax.random.normal(getkey(), (6, 2))
    key, sampler = getkey(), DDPMSampler()
    whole = sample_from(MIXTURE, sampler, noise, steps=20, key=key)
    x = COSINE.at(1.0).sigma * noise
    half = sample_between(MIXTURE, sampler, x, begin=0, end=8, steps=20, key=key)
    found = sample_between(MIXTURE, sampler, half, begin=8, end=20, steps=20, key=key)
    np.testing.assert_allclose(found, whole, atol=1e-5)
    assert float(jnp.abs(half - whole).max()) > 0.1


KEY = jax.random.key(0)
REFUSED = {
    "no steps": (
        lambda: draw_some(steps=0),
        r"steps must be between 1 and the 1000 timesteps; got 0",
    ),
    "steps below": (lambda: draw_some(steps=-3), r"got -3"),
    "steps above T": (lambda: draw_some(steps=1001), "got 1001"),
    "no steps of a grid in sigma": (
        lambda: draw_some(UniPCSampler(), steps=0),
        "steps must be at least 1; got 0",
    ),
    "steps of a given grid": (
        lambda: draw_some(DDIMSampler(grid=GivenGrid((1.0, 0.5, 0.0))), steps=5),
        "has 2 steps, but 5 are asked for",
    ),
    "no count": (
        lambda: draw_some(count=0),
        "count must be a whole number of samples, at least 1; got 0",
    ),
    "four conditions for six": (
        lambda: draw_some(cond=jnp.arange(4)),
        "has 4 entries, but 6 examples are drawn",
    ),
    "a part of the condition": (
        lambda: draw_some(cond={"label": jnp.arange(6), "measurement": jnp.zeros((4, 2))}),
        r"cond\['measurement'\] has 4 entries",
    ),
    "noise without a key": (
        lambda: sample_from(MIXTURE, DDPMSampler(), jnp.zeros((2, 2)), steps=3),
        "DDPMSampler draws noise on the way; give key=",
    ),
    "backwards": (
        lambda: sample_between(MIXTURE, DDIMSampler(), jnp.zeros((2, 2)), begin=3, end=3, steps=5),
        "begin < end",
    ),
    "beyond the end": (
        lambda: sample_between(MIXTURE, DDIMSampler(), jnp.zeros((2, 2)), begin=3, end=6, steps=5),
        "end <= steps=5",
    ),
    "snapshots too rare": (
        lambda: trajectory(MIXTURE, DDIMSampler(), (2,), count=1, steps=5, every=6, key=KEY),
        "every must be between 1 and steps=5",
    ),
    "eta above 1": (lambda: DDIMSampler(eta=1.5), "eta must be between 0 and 1; got 1.5"),
    "eta of another": (
        lambda: with_numbers(DDIMSampler(), {"eta": -0.1}),
        "eta must be between 0 and 1; got -0.1",
    ),
    "eta not a number": (lambda: DPMSolverPlusPlusSampler(eta=float("nan")), "eta must be between"),
    "churn below 0": (lambda: HeunSampler(churn=-1.0), "churn must be between"),
    "temperature below 0": (lambda: DDPMSampler(-1.0), "temperature must be between"),
    "a number it has not": (
        lambda: with_numbers(UniPCSampler(), {"eta": 0.5}),
        "no number 'eta' here; the numbers are: none",
    ),
    "noise for a deterministic one": (
        lambda: UniPCSampler(noise=BrownianNoise()),
        "draws no noise of its own",
    ),
    "an unknown sampler": (
        lambda: find_sampler("ddimm"),
        r"unknown sampler 'ddimm'; choose one of ddpm, ddim",
    ),
    "an unknown solver": (
        lambda: find_sampler("adaptive:Euler"),
        "no adaptive solver called 'Euler'",
    ),
    "an implicit solver": (lambda: find_sampler("diffrax:Kvaerno5"), "implicit solver"),
    "an unknown grid": (lambda: find_grid("karas"), "unknown grid 'karas'; choose one of trailing"),
    "a grid for an adaptive one": (
        lambda: with_grid(find_sampler("adaptive:Tsit5"), "karras"),
        "chooses its own levels",
    ),
    "a given grid that rises": (lambda: GivenGrid((0.5, 0.6, 0.0)), "must decrease"),
    "a given grid beyond 1": (lambda: GivenGrid((1.5, 0.6)), "must decrease from at most 1"),
    "a given grid of one": (lambda: GivenGrid((0.5,)), "at least two times"),
    "limits upside down": (
        lambda: KarrasGrid(sigma_max=1.0, sigma_min=2.0),
        "sigma_min < sigma_max",
    ),
    "a limit of 0": (lambda: LogSNRGrid(sigma_min=0.0), "0 < sigma_min"),
}


def draw_some(sampler=DDIMSampler(), **changed):
    options = {"count": 6, "steps": 3, "key": KEY, **changed}
    return sample(MIXTURE, sampler, (2,), **options)


@pytest.mark.parametrize("name", REFUSED)
def test_what_makes_no_sense_is_refused_with_the_reason(name):
    call, message = REFUSED[name]
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize(
    "name",
    [
        n
        for n in (*SAMPLERS, "diffrax:Heun", "adaptive:Tsit5", "sde:Euler")
        if not find_sampler(n).renoises
    ],
)
def test_samplers_that_do_not_renoise_refuse_cfg_plus_plus(name):
    with pytest.raises(ValueError, match="CFGPlusPlusGuidance would be misread; use DDIMSampler"):
        draw_some(find_sampler(name), guidance=CFGPlusPlusGuidance(), cond=jnp.zeros(6, jnp.int32))


@pytest.mark.parametrize("name", ["ddim", "euler", "euler-ancestral"])
def test_samplers_that_renoise_take_cfg_plus_plus(name):
    labels = jnp.zeros(6, jnp.int32)
    found = draw_some(find_sampler(name), guidance=CFGPlusPlusGuidance(), cond=labels)
    assert bool(jnp.isfinite(found).all())


def test_one_condition_serves_all():
    for cond in (1, jnp.asarray([1])):
        one = draw_some(cond=cond, guidance=ClassifierFreeGuidance(2.0))
        each = draw_some(cond=jnp.ones(6, jnp.int32), guidance=ClassifierFreeGuidance(2.0))
        np.testing.assert_array_equal(one, each)


def test_decode_is_applied_in_the_same_program(getkey):
    key = getkey()
    plain = sample(MIXTURE, DDIMSampler(), (2,), count=3, steps=4, key=key)
    decoded = sample(MIXTURE, DDIMSampler(), (2,), count=3, steps=4, key=key, decode=_doubled)
    np.testing.assert_allclose(decoded, 2.0 * plain[:, :1], atol=1e-6)


def _doubled(x):
    return 2.0 * x[:, :1]


# Compiles: each number of the sampler, the grid, the guidance and the schedule, and `first`.


def test_a_sweep_of_every_number_costs_one_compile():
    """Of samplers and guidance by name; of grids and schedules by making them anew."""
    made = three_gaussians(SCHEDULES["vp"], spread=0.5)

    def go(sampler, first=0, guidance=ClassifierFreeGuidance(2.0), denoiser=made, steps=4):
        return sample(
            denoiser,
            sampler,
            (2,),
            count=3,
            steps=steps,
            key=KEY,
            first=first,
            guidance=guidance,
            cond=jnp.zeros(3, jnp.int32),
        )

    base = DDIMSampler(eta=0.5, grid=KarrasGrid(rho=7.0, sigma_max=80.0))
    go(base)
    # A schedule checks its contract when it is made, by a program of its own.
    dataclasses.replace(SCHEDULES["vp"], beta_max=12.0)
    tried = 0
    with count_compiles() as compiles:
        for first in (0, 1, 2, 10**6):
            go(base, first)
            tried += 1
        for name in numbers(base):
            for value in (0.0, 0.25, 1.0):
                go(with_numbers(base, {name: value}))
                tried += 1
        for rho in (1.0, 3.0, 7):
            go(dataclasses.replace(base, grid=KarrasGrid(rho=rho, sigma_max=50.0)))
            tried += 1
        for scale in (0.0, 1.0, 2.5, 7):
            go(base, guidance=ClassifierFreeGuidance(scale))
            go(base, guidance=ClassifierFreeGuidance(2.0, rescale=scale / 7))
            tried += 2
        for beta_max in (10.0, 15, 25.0):
            schedule = dataclasses.replace(SCHEDULES["vp"], beta_max=beta_max)
            go(base, denoiser=dataclasses.replace(made, schedule=schedule))
            tried += 1
        results = [float(go(base, guidance=ClassifierFreeGuidance(w)).sum()) for w in (1.0, 3.0)]
    # The sum and the conversion of the last line are programs of their own.
    assert compiles.count <= 1, f"{compiles.count} compiles in {tried} runs"
    assert results[0] != results[1]
    assert tried == 24


def test_a_sweep_is_a_vmap():
    """Numbers that are arrays are mapped; the whole sweep is one program."""
    noise = jax.random.normal(KEY, (4, 2))
    cond = jnp.zeros(4, jnp.int32)

    @jax.jit
    def row(scale):
        guided = Guided(MIXTURE, ClassifierFreeGuidance(scale))
        return sample_from(guided, DDIMSampler(), noise, steps=6, cond=cond)

    scales = jnp.linspace(1.0, 4.0, 5)
    rows = jax.vmap(row)(scales)
    for i in (0, 3):
        np.testing.assert_allclose(rows[i], row(scales[i]), atol=1e-5)
    assert float(jnp.abs(rows[0] - rows[3]).max()) > 0.01


# Gradients through sampling.


def difference(function, value, stride):
    """The derivative by one-sided differences of second order, towards the inside of the range."""
    near = [function(value + i * stride) for i in range(3)]
    return (-3.0 * near[0] + 4.0 * near[1] - near[2]) / (2.0 * stride)


NOISE = np.asarray(jax.random.normal(jax.random.key(5), (16, 2)))


def quality(x):
    return jnp.mean(jnp.sin(3.0 * x[:, 0]) + x[:, 1] ** 2)


def by_eta(eta):
    return quality(
        sample_from(
            three_gaussians(SCHEDULES["vp"]),
            DDIMSampler(eta=eta),
            jnp.asarray(NOISE, float),
            steps=8,
            key=KEY,
        )
    )


def by_beta_max(beta_max):
    schedule = dataclasses.replace(SCHEDULES["vp"], beta_max=beta_max)
    denoiser = dataclasses.replace(three_gaussians(SCHEDULES["vp"]), schedule=schedule)
    sampler = HeunSampler(grid=KarrasGrid())
    return quality(sample_from(denoiser, sampler, jnp.asarray(NOISE, float), steps=8))


def by_scale(scale):
    guided = Guided(three_gaussians(SCHEDULES["linear"]), ClassifierFreeGuidance(scale))
    cond = jnp.arange(16, dtype=jnp.int32) % 3
    sampler = DPMSolverPlusPlusSampler(order=3)
    return quality(sample_from(guided, sampler, jnp.asarray(NOISE, float), steps=8, cond=cond))


@pytest.mark.parametrize(
    ("function", "value", "stride"),
    [
        (by_eta, 0.0, 1e-4),
        (by_eta, 0.5, 1e-4),
        (by_eta, 1.0, -1e-4),
        (by_beta_max, 20.0, 1e-3),
        (by_scale, 1.0, 1e-4),
        (by_scale, 2.5, 1e-4),
    ],
)
def test_a_gradient_through_sampling_is_that_of_differences(function, value, stride):
    """In double precision, so that differences have the digits to tell."""
    with jax.enable_x64(True):
        found = float(jax.jit(jax.grad(function))(jnp.asarray(value)))
        expected = float(difference(jax.jit(function), jnp.asarray(value), stride))
    assert found == pytest.approx(expected, rel=1e-4, abs=1e-7)
    assert abs(found) > 1e-4


# Noise.


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


def increments(noise, levels, keys):
    """The noise of each step between levels, times the root of its length on the path's clock."""
    state = State(jnp.zeros((len(keys), 3)), keys, jnp.asarray(0), jnp.asarray(8))
    found = []
    for i in range(len(levels.time) - 1):
        here = dataclasses.replace(state, index=jnp.asarray(i))
        t, s = levels[i], levels[i + 1]
        found.append(noise(here, t, s) * jnp.sqrt(s.lam - t.lam))
    return np.stack([np.asarray(f) for f in found])


def test_brownian_noise_is_one_path(getkey):
    """Steps refine it.

    The increments of two short steps are that of the long one. Fresh noise fails this.
    """
    keys = image_keys(getkey(), 4000)
    fine = COSINE.at_log_snr(jnp.linspace(-6.0, 6.0, 9))
    coarse = fine[jnp.arange(0, 9, 2)]
    path = BrownianNoise()
    short, long = increments(path, fine, keys), increments(path, coarse, keys)
    np.testing.assert_allclose(short.reshape(4, 2, 4000, 3).sum(axis=1), long, atol=2e-3)
    # Each is standard normal, and independent of the others.
    unit = short / np.sqrt(0.75)
    assert np.abs(unit.mean(axis=(1, 2))).max() < 0.04
    assert np.abs(unit.std(axis=(1, 2)) - 1.0).max() < 0.03
    correlation = np.corrcoef(unit.reshape(8, -1)) - np.eye(8)
    assert np.abs(correlation).max() < 0.04
    fresh = IndependentNoise()
    short, long = increments(fresh, fine, keys), increments(fresh, coarse, keys)
    assert np.abs(short.reshape(4, 2, 4000, 3).sum(axis=1) - long).max() > 1.0


def test_brownian_noise_keeps_the_image_when_steps_are_doubled(getkey):
    """Twice the steps change an image little on one path, and wholly with noise that is fresh each step."""
    noise, key = jax.random.normal(getkey(), (400, 2)), getkey()

    def drawn(source, steps):
        sampler = DPMSolverPlusPlusSampler(eta=1.0, noise=source)
        return np.asarray(sample_from(MIXTURE, sampler, noise, steps=steps, key=key))

    moved = [
        np.sqrt(np.mean((drawn(source, 64) - drawn(source, 128)) ** 2))
        for source in (BrownianNoise(), IndependentNoise())
    ]
    assert moved[0] < 0.25 * moved[1], moved


# Grids: where they stop, by their formulas.


def stops(grid, schedule, steps):
    index = jnp.arange(steps + 1, dtype=jnp.int32)
    return eqx.filter_jit(grid)(schedule, index, jnp.asarray(steps, jnp.int32))


def test_a_uniform_grid_is_even_in_time():
    times = stops(UniformGrid(), COSINE, 8).time
    np.testing.assert_allclose(times, np.arange(8, -1, -1) / 8, atol=1e-7)


def test_timestep_grids_stop_at_their_papers_timesteps():
    wanted = {
        "trailing": [999, 899, 799, 699, 599, 499, 399, 299, 199, 99],
        "leading": [900, 800, 700, 600, 500, 400, 300, 200, 100, 0],
        "linspace": [999, 888, 777, 666, 555, 444, 333, 222, 111, 0],
    }
    for name, timesteps in wanted.items():
        level = stops(find_grid(name), COSINE, 10)
        np.testing.assert_array_equal(COSINE.timestep_of(level)[:-1], timesteps)
        assert level.clean[-1]


def test_a_log_snr_grid_is_even_in_log_snr():
    level = stops(LogSNRGrid(), SCHEDULES["vp"], 12)
    rises = np.diff(level.log_snr[:-1])
    np.testing.assert_allclose(rises, np.full(len(rises), rises[0]), rtol=1e-3)
    np.testing.assert_allclose(level.time[jnp.asarray([0, 11, 12])], [1.0, 1e-3, 0.0], atol=1e-6)


def test_a_karras_grid_is_even_in_a_root_of_sigma():
    level = stops(KarrasGrid(rho=3.0, sigma_max=20.0, sigma_min=0.1), SCHEDULES["ve"], 9)
    root = np.asarray(level.sigma)[:-1] ** (1 / 3)
    np.testing.assert_allclose(root, np.linspace(20 ** (1 / 3), 0.1 ** (1 / 3), 9), rtol=1e-5)


def test_a_focused_grid_is_densest_at_its_center():
    """Even in asinh((lambda − center)/width)."""
    level = stops(FocusedGrid(center=0.5, width=1.5), SCHEDULES["vp"], 20)
    place = np.arcsinh((np.asarray(level.lam)[:-1] - 0.5) / 1.5)
    np.testing.assert_allclose(np.diff(place), np.mean(np.diff(place)), rtol=2e-3)
    strides = np.diff(np.asarray(level.lam)[:-1])
    nearest = int(np.argmin(np.abs(np.asarray(level.lam)[:-2] + 0.5 * strides - 0.5)))
    assert strides[nearest] == pytest.approx(strides.min(), rel=0.05)
    assert strides[0] > 1.5 * strides.min()


def test_a_given_grid_stops_where_it_says_and_may_end_noisy(getkey):
    times = (0.8, 0.55, 0.3, 0.1)
    level = stops(GivenGrid(times), SCHEDULES["vp"], 3)
    np.testing.assert_allclose(level.time, times, atol=1e-7)
    # Samples that end at t = 0.1 are noisy: the exact flow between both levels, for a Gaussian.
    denoiser = GaussianDenoiser(jnp.array([0.3]), jnp.array([0.5]), SCHEDULES["vp"])
    noise = jax.random.normal(getkey(), (200, 1))
    grid = GivenGrid(tuple(np.linspace(0.8, 0.1, 201)))
    found = sample_from(denoiser, HeunSampler(grid=grid), noise, steps=200)
    begin, end = (SCHEDULES["vp"].at(t) for t in (0.8, 0.1))
    sizes = [np.sqrt(float(b.alpha) ** 2 * 0.25 + float(b.sigma) ** 2) for b in (begin, end)]
    start = float(begin.sigma) * np.asarray(noise) - 0.3 * float(begin.alpha)
    expected = 0.3 * float(end.alpha) + sizes[1] / sizes[0] * start
    np.testing.assert_allclose(found, expected, atol=2e-4)


@pytest.mark.parametrize("name", ["ve", "edm", "vp"])
def test_a_grid_that_begins_below_the_top_begins_at_its_own_size(name, getkey):
    """Not at sigma(1), which is 50 on the VE schedule where the grid begins at 5."""
    schedule = SCHEDULES[name]
    noise = jax.random.normal(getkey(), (3, 2))
    denoiser = GaussianDenoiser(jnp.zeros(2), jnp.full(2, 0.5), schedule)
    for grid in (
        KarrasGrid(sigma_max=5.0),
        LogSNRGrid(sigma_max=5.0),
        GivenGrid((0.7, 0.3, 0.1, 0.0)),
    ):
        steps = 3
        first = stops(grid, schedule, steps)[0]
        path = trajectory(
            denoiser, DDIMSampler(grid=grid), (2,), count=3, steps=steps, every=1, key=KEY
        )
        expected = first.sigma * draw(image_keys(KEY, 3), 0, (2,))
        np.testing.assert_allclose(path[0], expected, rtol=1e-5)
        found = sample_from(denoiser, DDIMSampler(grid=grid), noise, steps=steps)
        between = sample_between(
            denoiser, DDIMSampler(grid=grid), first.sigma * noise, begin=0, end=3, steps=3
        )
        np.testing.assert_allclose(found, between, rtol=1e-5)
    assert float(schedule.at(1.0).sigma / schedule.at(1.0).alpha) > 10.0


# Churn.


class _Watched(GaussianDenoiser):
    """Remembers the levels at which it was asked."""

    def __call__(self, x, level, cond=None):
        jax.debug.callback(
            lambda s: ASKED.append(float(s)), level.sigma / level.alpha, ordered=True
        )
        return super().__call__(x, level, cond)


ASKED: list[float] = []


@pytest.mark.parametrize(
    ("limits", "churned"),
    [((0.0, float("inf")), 10), ((0.5, 5.0), None), ((100.0, 200.0), 0)],
)
def test_churn_raises_the_noise_within_its_limits_only(limits, churned):
    schedule = SCHEDULES["ve"]
    low, high = limits
    denoiser = _Watched(jnp.zeros(2), jnp.full(2, 0.5), schedule)
    grid = LogSNRGrid(sigma_max=20.0, sigma_min=0.02)
    sampler = HeunSampler(churn=3.0, churn_min=low, churn_max=high, grid=grid)
    ASKED.clear()
    jax.block_until_ready(sample(denoiser, sampler, (2,), count=1, steps=10, key=KEY))
    jax.effects_barrier()
    level = stops(grid, schedule, 10)
    ratio = np.asarray(level.sigma / level.alpha)[:-1]
    inside = (ratio >= low) & (ratio <= high)
    if churned is not None:
        assert inside.sum() == churned
    expected = ratio * np.where(inside, 1.3, 1.0)
    # Heun asks at the raised level, and then at the next one of the grid.
    np.testing.assert_allclose(ASKED[::2], expected, rtol=1e-4)
    np.testing.assert_allclose(ASKED[1::2], ratio[1:], rtol=1e-4)


def test_churn_is_never_more_than_a_factor_of_the_root_of_two():
    """Karras et al. (2022, algorithm 2): gamma = min(S_churn/N, sqrt(2) − 1)."""
    schedule = SCHEDULES["ve"]
    denoiser = _Watched(jnp.zeros(2), jnp.full(2, 0.5), schedule)
    grid = LogSNRGrid(sigma_max=20.0, sigma_min=0.02)
    ASKED.clear()
    jax.block_until_ready(
        sample(denoiser, HeunSampler(churn=500.0, grid=grid), (2,), count=1, steps=5, key=KEY)
    )
    jax.effects_barrier()
    level = stops(grid, schedule, 5)
    ratio = np.asarray(level.sigma / level.alpha)[:-1]
    np.testing.assert_allclose(ASKED[::2], ratio * 2**0.5, rtol=1e-4)


def test_no_noise_is_added_where_churn_is_out_of_its_limits(getkey):
    """Not even that of a level one rounding above: the samples are those without churn, bit for bit."""
    noise = jax.random.normal(getkey(), (32, 2))
    for schedule in ("linear", "cosine", "vp", "ve", "edm"):
        denoiser = GaussianDenoiser(jnp.zeros(2), jnp.full(2, 0.5), SCHEDULES[schedule])
        for grid, steps in ((None, 12), (UniformGrid(), 12), (UniformGrid(), 35)):
            options = {} if grid is None else {"grid": grid}
            plain = sample_from(denoiser, HeunSampler(**options), noise, steps=steps)
            sampler = HeunSampler(churn=40.0, churn_min=1e6, churn_max=2e6, **options)
            found = sample_from(denoiser, sampler, noise, steps=steps, key=KEY)
            np.testing.assert_allclose(found, plain, atol=1e-6, err_msg=schedule)


# Guidance outside of samplers.


def test_guidance_of_a_scale_is_the_same_by_driver_and_by_hand():
    labels = jnp.asarray([0, 1, 2, 0, 1, 2])
    given = draw_some(cond=labels, guidance=(ClassifierFreeGuidance(2.0),))
    by_hand = sample(
        Guided(MIXTURE, ClassifierFreeGuidance(2.0)),
        DDIMSampler(),
        (2,),
        count=6,
        steps=3,
        key=KEY,
        cond={"label": labels},
    )
    np.testing.assert_array_equal(given, by_hand)
    # A scale of 1 is the plain conditional prediction; whole programs round it in their own ways.
    one = draw_some(cond=labels, guidance=ClassifierFreeGuidance(1.0))
    np.testing.assert_allclose(one, draw_some(cond=labels), atol=5e-6)
