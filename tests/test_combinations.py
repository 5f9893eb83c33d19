"""Every schedule × parameterization × grid × guidance × sampler: right, or refused with a reason.

One program for each sampler tries all combinations of the others. A sampler of a Gaussian is an
affine map of the noise that it sees. So an example whose coordinate k sees only the k-th noise
gives the factors of all noise, and with them the exact standard deviation of samples, without
counting.
"""

import dataclasses
import functools
import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion_eqx.denoiser import Denoiser
from diffusion_eqx.guidance import (
    AdaptiveProjectedGuidance,
    CFGPlusPlusGuidance,
    ClassifierFreeGuidance,
    Clipping,
    DynamicThresholding,
    Guided,
)
from diffusion_eqx.samplers import Bound, State, Walk, begin_from_noise
from diffusion_eqx.schedules import AbstractSchedule
from diffusion_eqx.testing import AnySchedule
from tests.catalogue import ALL_GRIDS, ALL_SAMPLERS, PARAMETERIZATIONS, SCHEDULES
from tests.choices import (
    AnyGuidance,
    AnyParameterization,
    ByNetwork,
    TwoGaussians,
    UnitNoise,
    unit,
)

# Many programs are compiled here.
pytestmark = pytest.mark.long

STEPS = 40
# Coordinate 0 sees the initial noise, the next those of the steps, then their second draws; the
# last sees none.
size = 2 * STEPS + 2
MEAN, OTHER, STD = 0.3, -0.1, 0.2

# Kinds of guidance, and whether samples keep the standard deviation of the data. Both distributions
# having one deviation, guidance by their difference moves the mean alone; limits lie beyond all x0.
GUIDANCES = {
    "none": (None, True),
    "cfg": (ClassifierFreeGuidance(3.0), True),
    "cfg-1": (ClassifierFreeGuidance(1.0, rescale=0.7), True),
    "cfg-interval": (ClassifierFreeGuidance(2.0, interval=(0.2, 0.8)), True),
    "cfg-rescaled": (ClassifierFreeGuidance(2.0, rescale=0.7), False),
    "cfg++": (CFGPlusPlusGuidance(), False),
    "apg": (AdaptiveProjectedGuidance(), False),
    "apg-1": (AdaptiveProjectedGuidance(1.0), True),
    "clipping": (Clipping(), True),
    "cfg-thresholding": ((ClassifierFreeGuidance(1.5), DynamicThresholding()), True),
}

# How far the standard deviation may be off in 40 steps, by the error of the method.
FIRST = 0.25
# Where 40 steps are too few. Karras' levels of the cosine schedule begin at sigma/alpha = 20,000, and equal
# timesteps of the scaled linear one end with a long step to a deviation far below the data's.
SPREAD = {
    **{
        (name, "cosine", "karras"): 0.35
        for name in ("ddpm", "euler-ancestral", "predictor-corrector")
    },
    **{(name, "scaled_linear", "linspace"): 0.3 for name in ("ddpm", "euler-ancestral")},
    ("dpm++3m-sde", "cosine", "karras"): 0.65,
    ("sde:Euler", "scaled_linear", "leading"): 0.45,
    ("sde:Euler", "scaled_linear", "linspace"): 0.5,
}


@functools.cache
def tables():
    """The levels of every grid on every schedule, (schedules, grids, STEPS + 1)."""

    index, steps = jnp.arange(STEPS + 1, dtype=jnp.int32), jnp.asarray(STEPS, jnp.int32)
    rows = [
        jax.tree.map(
            lambda *each: jnp.stack(each),
            *(grid(schedule, index, steps) for grid in ALL_GRIDS.values()),
        )
        for schedule in SCHEDULES.values()
    ]
    return jax.tree.map(lambda *each: jnp.stack(each), *rows)


@functools.cache
def refused_pairs():
    """(schedule, parameterization) that a denoiser refuses, with its reason."""
    found = {}
    for (s, schedule), (p, parameterization) in itertools.product(
        SCHEDULES.items(), PARAMETERIZATIONS.items()
    ):
        try:
            Denoiser(lambda *_, key: None, schedule, parameterization)
        except ValueError as error:
            found[s, p] = str(error)
    return found


def test_only_pairs_without_an_answer_are_refused():
    refused = refused_pairs()
    without_signal = {s for s in SCHEDULES if float(SCHEDULES[s].at(1.0).alpha) == 0.0}
    assert without_signal == {"zero_snr", "zero_snr_cosine", "flow"}
    from_noise = {"epsilon", "score", "score-undivided", "edm"}
    expected = {(s, p) for s in without_signal for p in from_noise}
    expected |= {("zero_snr", "velocity"), ("zero_snr_cosine", "velocity")}
    assert set(refused) == expected
    for reason in refused.values():
        assert "cannot be used with this" in reason
        assert "choose VPrediction or X0Prediction" in reason


@eqx.filter_jit
def responses(sampler, schedules, parameterizations, guidances, tables, size):
    """Final examples, (schedules, guidances, parameterizations, grids, size).

    Coordinate 0 sees the initial noise, the next those of the steps, then their second draws; the last sees
    none.
    """
    consistent = type(sampler).__name__ == "ConsistencySampler"

    def lane(s, g, p, grid):
        schedule: AbstractSchedule = AnySchedule(schedules, s)
        std = jnp.full((1, size), STD)
        oracle = TwoGaussians(
            jnp.full((1, size), MEAN),
            jnp.full((1, size), OTHER),
            std,
            schedule,
            to_the_end=consistent,
        )
        network = ByNetwork(oracle, AnyParameterization(parameterizations, p))
        denoise = Bound(Guided(network, AnyGuidance(guidances, g)), jnp.zeros(1, jnp.int32))
        walk = Walk(sampler.grid, schedule, jnp.asarray(STEPS, jnp.int32), tables[s, grid])
        noise = unit(jnp.asarray(0), jnp.zeros((1, size)))
        state = begin_from_noise(sampler, denoise, walk, noise, keys=jax.random.key(0)[None])
        state = jax.lax.fori_loop(
            0, STEPS, lambda _, state: sampler.advance(denoise, walk, state), state
        )
        return state.x[0]

    def plane(pair):
        p, grid = np.indices((len(parameterizations), len(ALL_GRIDS)), np.int32)
        return jax.vmap(lambda p, grid: lane(*pair, p, grid))(p.ravel(), grid.ravel())

    s, g = np.indices((len(schedules), len(guidances)), np.int32)
    found = jax.lax.map(plane, (jnp.asarray(s.ravel()), jnp.asarray(g.ravel())))
    return found.reshape(
        len(schedules), len(guidances), len(parameterizations), len(ALL_GRIDS), size
    )


def ends(start, last):
    """The least and the greatest deviation of samples that a right method gives.

    - `start`: alpha and sigma at which samples begin as sigma·noise, without signal. The flow makes less of
      them than the reverse SDE.
    - `last`: alpha and sigma from which the last step goes to x0, the mean given what is seen there. The
      deviation about this mean is lost, so that at most what the start allows is found, and at least what
      the mean has.
    """
    alpha, sigma = start
    total = alpha**2 * STD**2 + sigma**2
    gain = alpha * STD**2 / total
    flow = STD * sigma / total**0.5
    sde = (STD**2 * sigma**2 / total + (gain * sigma) ** 2) ** 0.5
    alpha, sigma = last
    kept = (alpha**2 * STD**2 / (alpha**2 * STD**2 + sigma**2)) ** 0.5
    return min(flow, sde) * kept, max(flow, sde)


@pytest.mark.parametrize("name", ALL_SAMPLERS)
def test_every_combination_is_right_or_refused(name, monkeypatch, record_property):
    sampler = ALL_SAMPLERS[name]
    if sampler.stochastic:
        sampler = dataclasses.replace(sampler, noise=UnitNoise())
    monkeypatch.setattr(
        State, "second_draw", lambda state: unit(state.column(state.index + 1 + STEPS), state.x)
    )
    allowed = {g: pair for g, pair in GUIDANCES.items() if g != "cfg++" or sampler.renoises}
    kinds = tuple(guidance for guidance, _ in allowed.values())
    schedules, parameterizations = tuple(SCHEDULES.values()), tuple(PARAMETERIZATIONS.values())
    levels = tables()
    # Who draws nothing has an answer to the initial noise alone.
    twice = name in ("predictor-corrector", "sde:ShARK")
    size = 2 if sampler.deterministic else (1 + twice) * STEPS + 2
    found = responses(sampler, schedules, parameterizations, kinds, levels, size)
    found = np.asarray(found, np.float64)
    alpha, sigma = np.asarray(levels.alpha), np.asarray(levels.sigma)

    tried = refused = 0
    worst = 0.0
    wrong = []
    names = (SCHEDULES, allowed, PARAMETERIZATIONS, ALL_GRIDS)
    for place in itertools.product(*(range(len(n)) for n in names)):
        s, g, p, grid = (list(n)[i] for n, i in zip(names, place, strict=True))
        if (s, p) in refused_pairs():
            refused += 1
            continue
        tried += 1
        x = found[place]
        if not np.isfinite(x).all():
            wrong.append((s, g, p, grid, "not finite"))
            continue
        if not allowed[g][1]:
            continue
        std = np.sqrt(np.sum((x[:-1] - x[-1]) ** 2))
        there = place[0], place[3]
        least, greatest = ends(*((alpha[there][i], sigma[there][i]) for i in (0, -2)))
        spread = SPREAD.get((name, s, grid), FIRST) * STD
        worst = max(worst, max(least - std, std - greatest) / STD)
        if not least - spread <= std <= greatest + spread:
            wrong.append((s, g, p, grid, f"std {std:.4f} for {least:.4f} to {greatest:.4f}"))
    refused += 0 if sampler.renoises else len(SCHEDULES) * len(PARAMETERIZATIONS) * len(ALL_GRIDS)
    record_property("combinations tried", tried)
    record_property("combinations refused", refused)
    print(
        f"{name}: {tried} combinations tried, {refused} refused, deviations off by {worst:.3f} at most"
    )
    assert not wrong, f"{len(wrong)} of {tried}: {wrong[:12]}"
    assert tried + refused == np.prod(
        [len(n) for n in (SCHEDULES, GUIDANCES, PARAMETERIZATIONS, ALL_GRIDS)]
    )
