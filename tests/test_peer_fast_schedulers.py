"""Our fast samplers give what diffusers' schedulers give, from the same network and noise.

diffusers' loop runs in torch and calls our network, so only the schedulers differ. Where diffusers chooses
its timesteps in a way of its own, they are handed to ours as a `GivenGrid`; what is compared then is the
method. Six things differ, and the oracle of test_convergence.py is the judge of the first:

- DPM-Solver++ of third order lacks a factor 2 there; ours does too, if asked by `published=True`.
- SDE-DPM-Solver++ of third order has the sign of a term wrong there (− 1/2 for + 1/2 beside D_2), so that
  only the second order is compared; k-diffusion has it right.
- DEIS ends at the noise of timestep 0 rather than at none, repeating it: compared up to there.
- With Karras' noise levels, DPM-Solver and UniPC tell the network a rounded timestep, which is not that of
  the noise; Euler and Heun tell the right one, and are compared.
- Euler and Heun there keep x/alpha, up to 20,291 on the cosine schedule, in float32, whose rounding at that
  size, 1.2e-3, is allowed for; ours keeps x. Where the network predicts epsilon, roundings are
  magnified by 1/alpha, and the two (and DEIS, which works on x/alpha too) cannot be compared there.
  Nor can Heun on this schedule: its first step multiplies the difference of two slopes by 20,000.
- Euler and Heun with `linspace` interpolate sigma linearly between timesteps and the network's time as
  well; a schedule of ours interpolates log alpha_bar. Compared where their timesteps are integers.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion_eqx.denoiser import Denoiser
from diffusion_eqx.samplers import (
    DDIMSampler,
    DDPMSampler,
    DEISSampler,
    DPMSolverPlusPlusSampler,
    GivenGrid,
    HeunSampler,
    KarrasGrid,
    LeadingGrid,
    LinspaceGrid,
    TrailingGrid,
    UniPCSampler,
    draw,
    image_keys,
)
from tests.test_peer_schedulers import (
    COUNT,
    PREDICTIONS,
    SCHEDULES,
    SHAPE,
    assert_equal,
    build,
    network_of,
    run_ours,
)

pytestmark = [pytest.mark.peer, pytest.mark.long]

KEY = jax.random.key(8)
NOISE = draw(image_keys(KEY, COUNT), 0, SHAPE)


def scheduler(kind: str, schedule_type: str, prediction_type: str, spacing: str, **options):
    import diffusers

    common = {
        "num_train_timesteps": 1000,
        "beta_start": 1e-4,
        "beta_end": 0.02,
        "beta_schedule": SCHEDULES[schedule_type],
        "prediction_type": prediction_type,
        "timestep_spacing": spacing,
    }
    return getattr(diffusers, kind)(**common, **options)


def run_peer(made, network, noise, steps, step_noise=None):
    """diffusers' loop. Euler and Heun work on x/alpha and scale the network's input themselves."""
    import torch

    made.set_timesteps(steps)
    if type(made).__name__.startswith("DEIS"):
        # Its weights are small differences of large terms: formed in double precision, they are its method.
        made.sigmas = made.sigmas.double()
    x = torch.from_numpy(np.array(noise))
    scaled = hasattr(made, "scale_model_input") and type(made).__name__.startswith(
        ("Euler", "Heun")
    )
    if scaled:
        x = x * (made.sigmas[0] ** 2 + 1) ** 0.5
    for index, timestep in enumerate(made.timesteps):
        entered = made.scale_model_input(x, timestep)
        time = jnp.full(COUNT, float(timestep), jnp.float32)
        output = torch.from_numpy(np.array(network(jnp.asarray(entered.numpy()), time)))
        if step_noise is not None:
            drawn = torch.from_numpy(np.array(step_noise(index)))
            module = __import__(type(made).__module__, fromlist=["randn_tensor"])
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(module, "randn_tensor", lambda *_, drawn=drawn, **__: drawn)
                x = made.step(output, timestep, x).prev_sample
            continue
        x = made.step(output, timestep, x).prev_sample
    return x.numpy()


def rounding_of(made) -> float:
    """What float32 rounds off x/alpha at its largest, for the schedulers that keep it."""
    in_sigma = type(made).__name__.startswith(("Euler", "Heun"))
    return float(made.sigmas[0]) * 2.0**-24 if in_sigma else 0.0


def times_of(made, steps: int, end: float = 0.0) -> GivenGrid:
    """The peer's integer timesteps as a grid of ours."""
    made.set_timesteps(steps)
    timesteps = np.asarray(made.timesteps, np.float64)
    return GivenGrid((*((timesteps + 1.0) / 1000.0), end))


EVERY = [(schedule, prediction) for schedule in SCHEDULES for prediction in PREDICTIONS]
IN_SIGMA = [pair for pair in EVERY if pair != ("cosine", "epsilon")]
HEUN = [pair for pair in EVERY if pair[0] != "cosine"]
over_every = pytest.mark.parametrize(("schedule_type", "prediction_type"), EVERY)
over_those_in_sigma = pytest.mark.parametrize(("schedule_type", "prediction_type"), IN_SIGMA)


class TestEverySchedule:
    """Schedules × predictions; steps and spacings vary inside."""

    def check(self, kind, schedule_type, prediction_type, sampler, cases, **options):
        denoiser = build(schedule_type, prediction_type)
        network = network_of(denoiser)
        for steps, spacing, grid in cases:
            made = scheduler(kind, schedule_type, prediction_type, spacing, **options)
            theirs = run_peer(made, network, NOISE, steps)
            chosen = times_of(made, steps) if grid is None else grid
            ours = run_ours(denoiser, sampler(chosen), NOISE, steps, KEY)
            assert_equal(ours, theirs, rounding_of(made))

    @over_those_in_sigma
    def test_euler(self, schedule_type, prediction_type):
        cases = [(10, "linspace", LinspaceGrid()), (20, "trailing", TrailingGrid())]
        cases += [(50, "leading", LeadingGrid())]
        self.check(
            "EulerDiscreteScheduler",
            schedule_type,
            prediction_type,
            lambda g: DDIMSampler(grid=g),
            cases,
        )

    @pytest.mark.parametrize(("schedule_type", "prediction_type"), HEUN)
    def test_heun(self, schedule_type, prediction_type):
        cases = [(10, "linspace", LinspaceGrid()), (20, "trailing", TrailingGrid())]
        cases += [(50, "leading", LeadingGrid())]
        self.check(
            "HeunDiscreteScheduler",
            schedule_type,
            prediction_type,
            lambda g: HeunSampler(grid=g),
            cases,
        )

    @over_every
    @pytest.mark.parametrize("order", [2, 3])
    def test_dpm_solver_multistep(self, order, schedule_type, prediction_type):
        cases = [(10, "trailing", TrailingGrid()), (20, "leading", None), (50, "linspace", None)]
        self.check(
            "DPMSolverMultistepScheduler",
            schedule_type,
            prediction_type,
            lambda grid: DPMSolverPlusPlusSampler(order=order, published=True, grid=grid),
            cases,
            solver_order=order,
            algorithm_type="dpmsolver++",
        )

    @over_every
    def test_unipc(self, schedule_type, prediction_type):
        cases = [(10, "trailing", TrailingGrid()), (20, "leading", None), (50, "linspace", None)]
        self.check(
            "UniPCMultistepScheduler",
            schedule_type,
            prediction_type,
            lambda grid: UniPCSampler(order=3, grid=grid),
            cases,
            solver_order=3,
        )

    @over_those_in_sigma
    def test_deis(self, schedule_type, prediction_type):
        """diffusers stops at the noise of timestep 0, where ours is stopped too."""
        denoiser = build(schedule_type, prediction_type)
        network = network_of(denoiser)
        for steps, spacing, order in [(10, "leading", 2), (20, "linspace", 3), (50, "leading", 3)]:
            made = scheduler(
                "DEISMultistepScheduler",
                schedule_type,
                prediction_type,
                spacing,
                solver_order=order,
            )
            theirs = run_peer(made, network, NOISE, steps)
            grid = times_of(made, steps, end=1.0 / 1000)
            ours = run_ours(denoiser, DEISSampler(order=order, grid=grid), NOISE, steps, KEY)
            # Its polynomials of ratios of levels magnify what both round in other places.
            assert_equal(ours, theirs, 1e-4)


@pytest.mark.parametrize("schedule_type", SCHEDULES)
@pytest.mark.parametrize("steps", [10, 20, 50])
def test_euler_with_karras_grid(steps, schedule_type):
    prediction = "v_prediction"
    denoiser = build(schedule_type, prediction)
    made = scheduler(
        "EulerDiscreteScheduler", schedule_type, prediction, "linspace", use_karras_sigmas=True
    )
    theirs = run_peer(made, network_of(denoiser), NOISE, steps)
    ours = run_ours(denoiser, DDIMSampler(grid=KarrasGrid()), NOISE, steps, KEY)
    assert_equal(ours, theirs, rounding_of(made))


@pytest.mark.parametrize("schedule_type", SCHEDULES)
def test_euler_ancestral(schedule_type):
    denoiser = build(schedule_type, "v_prediction")
    keys = image_keys(KEY, COUNT)
    made = scheduler("EulerAncestralDiscreteScheduler", schedule_type, "v_prediction", "trailing")
    theirs = run_peer(
        made, network_of(denoiser), NOISE, 20, lambda index: draw(keys, index + 1, SHAPE)
    )
    sampler = DDIMSampler(eta=1.0, grid=TrailingGrid())
    assert_equal(run_ours(denoiser, sampler, NOISE, 20, KEY), theirs, rounding_of(made))


def test_stochastic_dpm_solver():
    order = 2
    denoiser = build("linear", "v_prediction")
    keys = image_keys(KEY, COUNT)
    made = scheduler(
        "DPMSolverMultistepScheduler",
        "linear",
        "v_prediction",
        "trailing",
        solver_order=order,
        algorithm_type="sde-dpmsolver++",
    )
    theirs = run_peer(
        made, network_of(denoiser), NOISE, 20, lambda index: draw(keys, index + 1, SHAPE)
    )
    sampler = DPMSolverPlusPlusSampler(eta=1.0, order=order, published=True, grid=TrailingGrid())
    assert_equal(run_ours(denoiser, sampler, NOISE, 20, KEY), theirs)


def test_learned_variance_is_that_of_diffusers():
    """DDPM with a network of twice the channels; the second half chooses the variance.

    With `leading`, whose last timestep is 0: after any other diffusers adds noise to the finished sample.
    """
    import diffusers
    import torch

    denoiser = build("linear", "epsilon")

    def network(x, c_noise, cond, *, key):
        return jnp.concatenate([denoiser.backbone(x, c_noise, cond, key=key), jnp.sin(3 * x)], -1)

    learned = Denoiser(network, denoiser.schedule, denoiser.parameterization, learned_variance=True)
    made = diffusers.DDPMScheduler(
        beta_start=1e-4,
        beta_end=0.02,
        variance_type="learned_range",
        clip_sample=False,
        timestep_spacing="leading",
    )
    made.set_timesteps(20)
    keys = image_keys(KEY, COUNT)
    x = torch.from_numpy(np.array(NOISE))
    module = __import__(type(made).__module__, fromlist=["randn_tensor"])
    for index, timestep in enumerate(made.timesteps):
        output = np.array(
            network(jnp.asarray(x.numpy()), jnp.full(COUNT, float(timestep)), None, key=None)
        )
        # diffusers counts channels in the second axis.
        drawn = torch.from_numpy(np.array(draw(keys, index + 1, SHAPE))).movedim(-1, 1)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(module, "randn_tensor", lambda *_, drawn=drawn, **__: drawn)
            given = [torch.from_numpy(a).movedim(-1, 1) for a in (output, x.numpy())]
            x = made.step(given[0], timestep, given[1]).prev_sample.movedim(1, -1)
    sampler = DDPMSampler(variance="learned", grid=LeadingGrid())
    assert_equal(run_ours(learned, sampler, NOISE, 20, KEY), x.numpy())
