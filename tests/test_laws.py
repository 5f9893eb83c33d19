"""The public laws hold for every part of the catalogue, and a blunted twin of a part breaks each of
them.
"""

import dataclasses
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion_eqx.data import ArrayDataset, ImageDataset, to_unit_range
from diffusion_eqx.denoiser import AbstractDenoiser, Prediction, as_level
from diffusion_eqx.guidance import (
    AbstractGuidance,
    AdaptiveProjectedGuidance,
    CFGPlusPlusGuidance,
    ClassifierFreeGuidance,
    ClassifierGuidance,
    Clipping,
    DPSGuidance,
    DynamicThresholding,
    MomentMatchingGuidance,
    PseudoInverseGuidance,
    within,
)
from diffusion_eqx.nn import MLP, DiT, UNet
from diffusion_eqx.parameterizations import (
    AbstractParameterization,
    Coefficients,
    VPrediction,
)
from diffusion_eqx.samplers import (
    AbstractSampler,
    AbstractSamplerWrapper,
    BrownianNoise,
    DDIMSampler,
    DDPMSampler,
    DEISSampler,
    HeunSampler,
    KarrasGrid,
    LeadingGrid,
    LMSSampler,
    LogSNRGrid,
    UniformGrid,
    UniPCSampler,
    find_sampler,
    number,
)
from diffusion_eqx.schedules import AbstractSchedule, DiscreteSchedule, VPSchedule, over
from diffusion_eqx.testing import (
    LawBroken,
    check_backbone,
    check_dataset,
    check_grid,
    check_guidance,
    check_parameterization,
    check_sampler,
    check_schedule,
    three_gaussians,
)
from tests.catalogue import ALL_GRIDS, BETAS, PARAMETERIZATIONS, SCHEDULES
from tests.filled import filled
from tests.test_combinations import refused_pairs

# Many programs are compiled here.
pytestmark = pytest.mark.long

# Schedules.


@pytest.mark.parametrize("name", SCHEDULES)
def test_schedules_keep_their_laws(name):
    check_schedule(SCHEDULES[name])


def test_schedules_of_other_sizes_keep_them_too():
    check_schedule(DiscreteSchedule(BETAS["cosine"][-1:]))
    check_schedule(VPSchedule(0.2, 12.0, num_timesteps=40_000))


class Unchecked(AbstractSchedule):
    """alpha and sigma of a plain cosine, with one fault.

    The fault is a number, so that one program serves all. It is set once the schedule is made.
    """

    fault: jax.Array = eqx.field(default=0, converter=jnp.asarray)

    def has(self, fault):
        return self.fault == list(SCHEDULE_FAULTS).index(fault)

    def alpha(self, t):
        turn = jnp.where(self.has("negative"), 0.55, 0.49)
        turn = jnp.where(self.has("ends"), 0.3, turn).astype(t.dtype)
        return jnp.where(self.has("begin"), 0.99, 1.0).astype(t.dtype) * jnp.cos(turn * jnp.pi * t)

    def sigma(self, t):
        turn = jnp.where(self.has("ends"), 0.3, 0.49).astype(t.dtype)
        plain = jnp.sin(turn * jnp.pi * t)
        cancelling = jnp.sqrt(jnp.maximum(1.0 - self.alpha(t) ** 2, 1e-12)) * jnp.sign(t)
        dented = plain * (1.0 - 0.5 * jnp.exp(-(((t - 0.8) / 0.05) ** 2)))
        found = jnp.where(self.has("digits"), cancelling, plain)
        return jnp.where(self.has("rises"), dented, found)

    def log_snr(self, t):
        plain = super().log_snr(t) + jnp.where(self.has("log_snr"), 0.1, 0.0).astype(t.dtype)
        return plain + jnp.where(self.has("slope"), jnp.sqrt(1.0 - t) * 1e-5, 0.0)

    def time_of_log_snr(self, log_snr):
        plain = super().time_of_log_snr(log_snr)
        return jnp.where(self.has("inverse"), plain**1.001, plain)

    def timestep_of(self, level):
        return super().timestep_of(level) + jnp.where(self.has("timestep"), 0.25, 0.0)

    def pair_of_log_snr(self, log_snr, time):
        alpha, sigma = super().pair_of_log_snr(log_snr, time)
        return alpha, jnp.where(self.has("pair"), 1.01, 1.0).astype(sigma.dtype) * sigma


SCHEDULE_FAULTS = {
    "none": None,
    "begin": "a schedule begins clean",
    "negative": "alpha and sigma are not negative",
    "ends": "it ends in noise",
    "rises": "the log-SNR falls strictly",
    "digits": "single precision keeps the digits of sigma",
    "log_snr": "log_snr is log(alpha²/sigma²)",
    "slope": "slopes of levels are finite at both ends",
    "inverse": "at_log_snr inverts the log-SNR",
    "pair": "at_log_snr gives the sigma of its time",
    "timestep": "timesteps survive the way through time exactly",
}


@pytest.mark.parametrize("fault", SCHEDULE_FAULTS)
def test_a_blunted_schedule_breaks_the_law_and_a_right_one_passes(fault):
    number = jnp.asarray(list(SCHEDULE_FAULTS).index(fault))
    schedule = eqx.tree_at(lambda s: s.fault, Unchecked(), number)
    if fault == "none":
        check_schedule(schedule)
        return
    with pytest.raises(LawBroken) as broken:
        check_schedule(schedule)
    assert broken.value.law == SCHEDULE_FAULTS[fault]
    assert str(broken.value.owed) in str(broken.value)


class WithStatic(AbstractSchedule):
    strength: float = eqx.field(static=True, default=0.49)

    def alpha(self, t):
        return jnp.cos(self.strength * jnp.pi * t)

    def sigma(self, t):
        return jnp.sin(self.strength * jnp.pi * t)


def test_a_static_number_breaks_the_law():
    with pytest.raises(LawBroken, match=r"may be inputs.*strength"):
        check_schedule(WithStatic())


# Parameterizations.


@pytest.mark.parametrize("name", PARAMETERIZATIONS)
def test_parameterizations_keep_their_laws_where_they_are_allowed(name):
    for s, schedule in SCHEDULES.items():
        if (s, name) in refused_pairs():
            with pytest.raises(LawBroken, match="coefficients are finite"):
                check_parameterization(PARAMETERIZATIONS[name], schedule)
        else:
            check_parameterization(PARAMETERIZATIONS[name], schedule)


class Blunt(AbstractParameterization):
    fault: str = eqx.field(static=True)

    def coefficients(self, schedule, level) -> Coefficients:
        c = VPrediction().coefficients(schedule, level)
        if self.fault == "infinite":
            return c._replace(c_skip=c.c_skip / (1.0 - level.time))
        if self.fault == "shape":
            return c._replace(c_in=jnp.ones(()))
        if self.fault == "apart" and level.time.ndim:
            return c._replace(c_out=jnp.full_like(c.c_out, c.c_out[0]))
        return c


@pytest.mark.parametrize(
    ("fault", "law"),
    [
        ("infinite", "coefficients are finite"),
        ("shape", "have the shape"),
        ("apart", "its own level"),
    ],
)
def test_a_blunted_parameterization_breaks_the_law(fault, law):
    with pytest.raises(LawBroken, match=law):
        check_parameterization(Blunt(fault), SCHEDULES["linear"])


# Grids.


@pytest.mark.parametrize("name", ALL_GRIDS)
def test_grids_keep_their_laws(name):
    for schedule in ("linear", "zero_snr", "edm", "flow"):
        check_grid(ALL_GRIDS[name], SCHEDULES[schedule], steps=(1, 2, 3, 10, 40, 64, 1000))


def test_grids_keep_them_for_very_many_timesteps():
    """32-bit integers overflow from 32,768 timesteps on, at as many steps."""
    for total in (32_768, 200_000):
        for name in ("trailing", "leading", "linspace"):
            check_grid(ALL_GRIDS[name], VPSchedule(num_timesteps=total), steps=(1, 7, 50))
            levels = ALL_GRIDS[name].timestep(
                total,
                jnp.asarray([0, total // 2, total - 1], jnp.int32),
                jnp.asarray(total, jnp.int32),
            )
            np.testing.assert_array_equal(levels, [total - 1, total - 1 - total // 2, 0])


class Stuck(UniformGrid):
    fault: str = eqx.field(static=True, default="")

    def check(self, schedule, steps):
        if self.fault != "check":
            super().check(schedule, steps)

    def __call__(self, schedule, index, steps):
        if self.fault == "twice":
            index = jnp.where(index == 2, 1, index)
        if self.fault == "table" and index.ndim:
            index = jnp.maximum(index, 0) + jnp.where(index == steps - 1, -0, 0)
            return schedule.at(0.99 * (steps - index).astype(float) / steps.astype(float))
        return super().__call__(schedule, index, steps)


@pytest.mark.parametrize(
    ("fault", "law"),
    [
        ("check", "impossible numbers"),
        ("twice", "ever cleaner"),
        ("table", "one index gives what the table gives"),
    ],
)
def test_a_blunted_grid_breaks_the_law(fault, law):
    with pytest.raises(LawBroken, match=law):
        check_grid(Stuck(fault=fault), SCHEDULES["vp"])


# Samplers. What the catalogue holds twice, under another name or order, is for the long run.

GRID = LogSNRGrid()


class FlowEnd(AbstractDenoiser):
    """A consistency model of N(mean, std²): x0 is the end of the flow."""

    mean: jax.Array
    std: jax.Array
    schedule: AbstractSchedule
    null: None = None

    def __call__(self, x, level, cond=None):
        level = as_level(self.schedule, level).over(x)
        total = level.alpha**2 * self.std[None] ** 2 + level.sigma**2
        x0 = self.mean[None] + self.std[None] * (x - level.alpha * self.mean[None]) / jnp.sqrt(
            total
        )
        return Prediction(x0, level.eps(x, x0))


LAWFUL = {
    "ddpm": (DDPMSampler(), 1, {"spread": 0.06}),
    "ddim-half": (DDIMSampler(eta=0.5, noise=BrownianNoise(depth=4)), None, {"spread": 0.06}),
    "heun": (HeunSampler(), None, {}),
    "edm": (find_sampler("edm"), None, {"spread": 0.1}),
    "2s": (find_sampler("dpm++2s"), None, {}),
    "3m": (find_sampler("dpm++3m"), 3, {}),
    "3m-sde": (find_sampler("dpm++3m-sde"), 2, {}),
    "unipc": (UniPCSampler(), None, {}),
    "lms": (LMSSampler(grid=GRID), None, {}),
    "predictor-corrector": (find_sampler("predictor-corrector"), None, {"spread": 0.06}),
    "diffrax:Tsit5": (find_sampler("diffrax:Tsit5"), None, {}),
    "adaptive:Tsit5": (find_sampler("adaptive:Tsit5"), None, {}),
}
MORE = {
    "deis": (DEISSampler(), 3, {}),
    "sde:ShARK": (find_sampler("sde:ShARK"), None, {"spread": 0.05}),
    "consistency": (find_sampler("consistency"), None, {"oracle": FlowEnd}),
    "ddim": (DDIMSampler(), 1, {"spread": 0.06}),
    "ddim-karras": (DDIMSampler(grid=KarrasGrid()), 1, {"spread": 0.06}),
    # Its first order shows on other levels; see test_convergence.
    "ddpm-large": (DDPMSampler(variance="large"), None, {"spread": 0.06}),
    "euler-ancestral": (find_sampler("euler-ancestral"), 1, {"spread": 0.06}),
    "2m": (find_sampler("dpm++2m"), 2, {}),
    "2m-sde": (find_sampler("dpm++2m-sde"), 2, {}),
    "unipc-3": (UniPCSampler(order=3, grid=GRID), 3, {}),
    "deis-2": (DEISSampler(order=2), 2, {}),
    "heun-logsnr": (HeunSampler(grid=GRID), 2, {}),
    "lms-2": (LMSSampler(order=2, grid=GRID), 2, {}),
    "heun-leading": (HeunSampler(grid=LeadingGrid()), 2, {}),
    "diffrax:Heun": (find_sampler("diffrax:Heun"), 2, {}),
    "diffrax:Dopri5": (find_sampler("diffrax:Dopri5"), None, {}),
    "sde:Euler": (find_sampler("sde:Euler"), 1, {"spread": 0.06}),
    "adaptive:Dopri5": (find_sampler("adaptive:Dopri5"), None, {}),
}


@pytest.mark.parametrize(
    "name", [*LAWFUL, *(pytest.param(name, marks=pytest.mark.long) for name in MORE)]
)
def test_samplers_keep_their_laws(name):
    sampler, order, options = {**LAWFUL, **MORE}[name]
    check_sampler(sampler, order, **options)


class Wrong(AbstractSampler):
    """DDIM with one fault; a number where that can be, so that one program serves several."""

    fault: Any = 0.0
    kind: str = eqx.field(static=True, default="")

    renoises: ClassVar[bool] = True

    @property
    def deterministic(self) -> bool:
        return self.kind == "keys"

    def has(self, fault):
        return self.fault == list(SAMPLER_FAULTS).index(fault)

    def step(self, denoise, state, t, s):
        if self.kind == "evaluations":
            denoise(state.x, t)
        temperature = jnp.where(self.has("noise"), 1.4, 1.0)
        moved = DDIMSampler(0.5, temperature, grid=self.grid, noise=self.noise).step(
            denoise, state, t, s
        )
        x = moved.x
        x = jnp.where(self.has("last") & s.clean, 1.001 * x, x)
        x = x / jnp.where(self.has("finite") & (t.alpha < 1e-8), 0.0, 1.0)
        x = x + jnp.where(self.has("batch") & ~s.clean, 1e-2, 0.0) * (
            x - x.mean(axis=0, keepdims=True)
        )
        beside = s.alpha if s.alpha.ndim == 0 else s.alpha.reshape(-1)[0]
        x = x + jnp.where(self.has("axes") & ~s.clean, 1.0, 0.0) * (s.alpha - beside)
        nothing = jnp.abs(x - jax.lax.stop_gradient(x))
        stuck = jnp.sqrt(jnp.where(self.has("slope"), nothing, 1.0))
        x = jnp.where(self.has("slope"), x + stuck, x)
        if self.kind == "export":
            x = x + 0.0 * jnp.linalg.inv(jnp.eye(2) + 0.0 * x.sum())[0, 0]
        return state.moved(x)


SAMPLER_FAULTS = {
    "none": None,
    "noise": "samples of a Gaussian have its standard deviation",
    "last": "a single step returns x0",
    "finite": "samples are finite at both ends",
    "batch": "an image is image k of its key, whatever the batch",
    "axes": "images of one batch at different steps equal each alone",
    "slope": "derivatives are finite",
    "evaluations": "it calls the denoiser as often as `evaluations` says",
    "keys": "a deterministic sampler does not look at keys",
    "export": "a step can be exported",
}


@pytest.mark.parametrize("fault", SAMPLER_FAULTS)
def test_a_blunted_sampler_breaks_the_law_and_a_right_one_passes(fault):
    static = fault in ("evaluations", "keys", "export")
    made = Wrong(kind=fault) if static else Wrong(float(list(SAMPLER_FAULTS).index(fault)))
    if fault == "none":
        check_sampler(made, spread=0.06)
        return
    with pytest.raises(LawBroken) as broken:
        check_sampler(made, spread=0.06)
    assert broken.value.law == SAMPLER_FAULTS[fault]


class Counting(DDIMSampler):
    """Remembers how many steps it took, for all examples in one number."""

    remembers: ClassVar[bool] = True

    def init(self, denoise, x, t, s):
        return jnp.zeros(())

    def step(self, denoise, state, t, s):
        moved = super().step(denoise, state, t, s)
        return dataclasses.replace(moved, memory=state.memory + 1.0)


class Forgetful(Counting):
    """Remembers one number for each example, and does not say so."""

    remembers: ClassVar[bool] = False

    def init(self, denoise, x, t, s):
        return jnp.zeros(len(x))


@pytest.mark.parametrize(
    ("sampler", "law"),
    [(Counting(), "batch as its first axis"), (Forgetful(), "says that it remembers")],
)
def test_a_memory_that_no_artifact_could_carry_breaks_the_law(sampler, law):
    with pytest.raises(LawBroken, match=law):
        check_sampler(sampler)


class Stray(AbstractSamplerWrapper):
    """DDIM of which a part of each step goes to the level of the time before."""

    sampler: AbstractSampler = DDIMSampler()

    stochastic: ClassVar[bool] = False

    def step(self, denoise, state, t, s):
        right = self.sampler.step(denoise, state, t, s)
        stray = jnp.where(s.clean, 0.0, 0.2 * (t.sigma - s.sigma)) * denoise(state.x, t).eps
        return dataclasses.replace(right, x=right.x + stray)

    evaluations: ClassVar[int | None] = None


def test_a_level_of_the_wrong_time_breaks_the_order():
    with pytest.raises(LawBroken, match=r"at its order|standard deviation"):
        check_sampler(Stray(grid=GRID), order=1, spread=1.0)


class Compiling(DDIMSampler):
    """A number that is static costs a compile for each value."""

    scale: float = eqx.field(
        default=1.0,
        static=True,
        metadata={"number": number(1.0, minimum=0.5, maximum=2.0, about="").metadata["number"]},
    )


def test_a_number_that_compiles_breaks_the_law():
    with pytest.raises(LawBroken, match=r"no number costs a new compile: scale may be an input"):
        check_sampler(Compiling())


# Guidance.


class CompilingGuidance(ClassifierFreeGuidance):
    spare: float = eqx.field(
        default=1.0,
        static=True,
        metadata={"number": number(1.0, minimum=0.5, maximum=2.0, about="").metadata["number"]},
    )


def test_a_number_of_guidance_that_compiles_breaks_the_law():
    with pytest.raises(LawBroken, match=r"no number costs a new compile: spare may be an input"):
        check_guidance(CompilingGuidance())


def _classifier(x, level):
    return jnp.stack([x.reshape(len(x), -1)[:, i] * (1.0 + level.alpha) for i in range(3)], axis=1)


def _blur(x):
    return x.mean(axis=2, keepdims=True)


GUIDANCES = {
    "cfg": ClassifierFreeGuidance(2.5, rescale=0.3),
    "cfg++": CFGPlusPlusGuidance(),
    "apg": AdaptiveProjectedGuidance(2.5, norm_threshold=1.0),
    "classifier": ClassifierGuidance(_classifier, 1.5),
    "dps": DPSGuidance(_blur),
    "pigdm": PseudoInverseGuidance(_blur),
    "mmps": MomentMatchingGuidance(_blur),
    "clipping": Clipping(),
    "thresholding": DynamicThresholding(0.9),
}


@pytest.mark.parametrize("name", GUIDANCES)
def test_guidance_keeps_its_laws(name):
    check_guidance(GUIDANCES[name])


class Bent(AbstractGuidance):
    """Classifier-free guidance with one fault.

    A number where that can be, so that one program serves several.
    """

    guidance_scale: Any = number(2.0, neutral=1.0, minimum=0.0, maximum=10.0, about="")
    spare: Any = number(0.0, minimum=0.0, maximum=1.0, about="")
    fault: Any = 0.0
    interval: tuple[Any, Any] | None = None
    kind: str = eqx.field(static=True, default="")

    takes: ClassVar[tuple[str, ...]] = ("class_label",)

    def has(self, fault):
        return self.fault == list(GUIDANCE_FAULTS).index(fault)

    def __call__(self, denoiser, x, level, cond):
        if self.kind != "missing" and "class_label" not in cond:
            raise ValueError("class_label is missing")
        rest = {"label": cond["label"]}

        def guided(inside):
            found = ClassifierFreeGuidance(self.guidance_scale)(denoiser, x, level, rest)
            plain = denoiser(x, level, rest)
            if self.kind == "takes":
                denoiser(x, level, cond)
            x0 = jnp.where(over(inside, x), found.x0, plain.x0)
            spare = over(self.spare, x)
            spare = jnp.where(self.has("numbers"), jnp.mean(spare), spare)
            x0 = x0 + jnp.where(self.has("spare"), 0.0, 0.1) * spare
            x0 = x0 + jnp.where(self.has("neutral"), 1e-3, 0.0)
            # At its neutral value and outside of its interval this is not seen.
            some = over(jnp.where(inside, self.guidance_scale - 1.0, 0.0), x)
            mixed = plain.x0 - plain.x0.mean(axis=0, keepdims=True)
            x0 = x0 + jnp.where(self.has("apart"), 0.1 * some, 0.0) * mixed
            x0 = x0 / over(jnp.where(self.has("finite") & (level.alpha == 0.0), 0.0, 1.0), x)
            bent = found.with_x0(x, level, x0)
            return Prediction(x0 + jnp.where(self.has("pair"), 0.1 * some, 0.0), bent.eps)

        everywhere = jnp.ones_like(level.time, bool)
        if self.kind == "branch" and self.interval is not None:
            return guided((level.time >= self.interval[0]) & (level.time <= self.interval[1]))
        if self.kind == "interval":
            return guided(everywhere)
        return within(self.interval, level, guided, lambda: denoiser(x, level, rest))


class LabelOnly(AbstractDenoiser):
    """Takes the label out of whatever it is given."""

    denoiser: AbstractDenoiser
    null: int = -1

    @property
    def schedule(self) -> AbstractSchedule:
        return self.denoiser.schedule

    def __call__(self, x, level, cond=None):
        return self.denoiser(x, level, cond["label"] if isinstance(cond, dict) else cond)


GUIDANCE_FAULTS = {
    "none": None,
    "neutral": "its neutral value changes nothing",
    "spare": "every number acts",
    "apart": "each example is guided by its own level and condition",
    "numbers": "each example is guided by its own number, if there is one for each",
    "finite": "predictions are finite at both ends",
    "pair": "x = alpha·x0 + sigma·eps holds",
    "interval": "outside its interval guidance changes nothing",
    "branch": "outside its interval guidance costs one branch",
    "takes": "the network does not see what the guidance takes",
    "missing": "a missing part of cond is refused",
}


@pytest.mark.parametrize("fault", GUIDANCE_FAULTS)
def test_a_blunted_guidance_breaks_the_law_and_a_right_one_passes(fault):
    static = fault in ("interval", "branch", "takes", "missing")
    made = Bent(kind=fault) if static else Bent(fault=float(list(GUIDANCE_FAULTS).index(fault)))
    if fault == "none":
        check_guidance(made)
        return
    denoiser = LabelOnly(three_gaussians(VPSchedule())) if fault == "takes" else None
    with pytest.raises(LawBroken) as broken:
        check_guidance(made, denoiser=denoiser, shape=(2, 2, 2) if denoiser is None else (2,))
    assert broken.value.law == GUIDANCE_FAULTS[fault]


# Backbones.


class Net(eqx.Module):
    """A small network of one's own, with one fault."""

    weight: jax.Array
    bias: jax.Array
    fault: str = eqx.field(static=True, default="")

    def __call__(self, x, c_noise, cond, *, key):
        fault = self.fault
        told = jnp.sin(c_noise.astype(jnp.float32) / 100.0).astype(x.dtype)
        told = told.reshape(-1, *(1,) * (x.ndim - 1))
        if fault == "level":
            told = told[:1]
        if fault == "wide":
            told = told.astype(jnp.float32)
            x = x.astype(jnp.float32)
        hidden = jnp.tanh(
            (x @ self.weight.astype(x.dtype))
            + told
            + self.bias.astype(x.dtype).reshape((1,) * (x.ndim - 1) + (-1,))
        )
        if cond is not None:
            hidden = hidden + (cond.astype(x.dtype) / 10.0).reshape(-1, *(1,) * (x.ndim - 1))
        if fault == "shape":
            return hidden[..., :1]
        if fault == "finite":
            return hidden / 0.0
        if fault == "batch":
            return hidden - hidden.mean(axis=0, keepdims=True)
        if fault == "gradient":
            return jax.lax.stop_gradient(hidden)
        if fault == "python":
            return hidden * float(np.asarray(x).sum())
        return hidden


BACKBONE_FAULTS = {
    "shape": "the output has the shape of the input, or twice its channels",
    "finite": "the output is finite",
    "batch": "an example does not depend on the example beside it",
    "level": "an example does not depend on",
    "gradient": "some weight has a gradient",
    "python": "a backbone is called as (x, c_noise, cond, *, key)",
    "wide": "a network computes in the dtype of its weights",
}


BACKBONES = {
    "unet": (
        lambda: filled(
            UNet,
            in_channels=2,
            out_channels=2,
            channels=(8, 16),
            num_res_blocks=1,
            attention_levels=(1,),
            embedding_dim=16,
            num_classes=3,
            activation=jax.nn.silu,
            dropout=0.0,
            head_dim=8,
            norm_groups=4,
        ),
        (4, 4, 2),
    ),
    "dit": (
        lambda: filled(
            DiT,
            in_channels=2,
            out_channels=2,
            patch_size=2,
            dim=16,
            depth=2,
            heads=2,
            mlp_ratio=2.0,
            num_classes=3,
            dropout=0.0,
        ),
        (4, 4, 2),
    ),
    "mlp": (lambda: filled(MLP, 2, width=16, depth=2, num_classes=3), (2,)),
}


@pytest.mark.parametrize("name", BACKBONES)
def test_backbones_keep_their_laws_in_single_and_half_precision(name):
    make, shape = BACKBONES[name]
    check_backbone(make(), shape, cond=jnp.asarray([0, 2], jnp.int32))


def net(fault=""):
    rng = np.random.default_rng(0)
    return Net(jnp.asarray(rng.standard_normal((2, 2)), float), jnp.zeros(2), fault)


def test_a_right_backbone_of_ones_own_passes():
    check_backbone(net(), (4, 4, 2))
    check_backbone(net(), (2,), cond=jnp.asarray([0, 3], jnp.int32))


@pytest.mark.parametrize("fault", BACKBONE_FAULTS)
def test_a_blunted_backbone_breaks_the_law(fault):
    with pytest.raises(LawBroken) as broken:
        check_backbone(net(fault), (4, 4, 2))
    assert broken.value.law.startswith(BACKBONE_FAULTS[fault])


# Data sets.

PIXELS = np.random.default_rng(0).integers(0, 256, (40, 4, 4, 1)).astype(np.uint8)


def test_data_sets_keep_their_laws():
    check_dataset(ImageDataset(PIXELS, np.arange(40) % 3))
    check_dataset(ImageDataset(PIXELS))
    latents = np.random.default_rng(1).standard_normal((10, 2, 2, 4)).astype(np.float32)
    check_dataset(ArrayDataset(latents, np.arange(10) % 2), images=False)


class Faulty:
    """A data set of one's own, with one fault."""

    def __init__(self, fault=""):
        self.fault = fault
        self.inside = ImageDataset(PIXELS, np.arange(40) % 3)
        self.class_names = ("a", "b") if fault == "names" else ()
        self.calls = 0

    shape = property(lambda self: (4, 4, 2) if self.fault == "shape" else (4, 4, 1))
    num_classes = property(lambda self: 2 if self.fault == "classes" else 3)
    labels = property(lambda self: self.inside.labels)

    def __len__(self):
        return 40

    def batches(self, batch_size, *, seed):
        self.calls += 1
        stream = self.inside.batches(
            batch_size, seed=seed + (self.calls if self.fault == "seed" else 0)
        )
        fault = self.fault

        class Stream:
            def __getitem__(self, number):
                batch = dict(stream[number])
                images = to_unit_range(batch["images"])
                batch["images"] = images
                if fault == "range":
                    batch["images"] = images * 127.5
                if fault == "half":
                    batch["images"] = 0.5 + 0.5 * images
                if fault == "bytes":
                    batch["images"] = (images * 100).astype(np.int8)
                if fault == "labels":
                    batch["labels"] = np.roll(batch["labels"], seed % 7)
                return batch

        return Stream()


DATASET_FAULTS = {
    "names": "a name each",
    "classes": "labels are those of classes",
    "shape": "the shape that was asked for",
    "seed": "depends on the seed",
    "range": r"pixels lie in",
    "half": "use both halves",
    "bytes": "floating-point numbers, or bytes",
    "labels": "each example once, with its label",
}


def test_a_right_data_set_of_ones_own_passes():
    check_dataset(Faulty())


@pytest.mark.parametrize("fault", DATASET_FAULTS)
def test_a_blunted_data_set_breaks_the_law(fault):
    with pytest.raises(LawBroken, match=DATASET_FAULTS[fault]):
        check_dataset(Faulty(fault))
