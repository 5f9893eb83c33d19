"""Every sampler and grid by name, for command lines, configurations and documentation."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import diffrax

from diffusion_eqx.denoiser import AbstractDenoiser
from diffusion_eqx.samplers.adams_bashforth import DEISSampler, LMSSampler
from diffusion_eqx.samplers.base import AbstractSampler
from diffusion_eqx.samplers.brownian import AbstractNoise, BrownianNoise
from diffusion_eqx.samplers.consistency import ConsistencySampler
from diffusion_eqx.samplers.ddim import DDIMSampler
from diffusion_eqx.samplers.ddpm import DDPMSampler
from diffusion_eqx.samplers.diffrax_adaptive import DiffraxAdaptiveSampler
from diffusion_eqx.samplers.diffrax_fixed import DiffraxODESampler, DiffraxSDESampler
from diffusion_eqx.samplers.dpm_solver import DPMSolverPlusPlus, DPMSolverPlusPlus2S
from diffusion_eqx.samplers.grid import (
    AbstractGrid,
    FocusedGrid,
    KarrasGrid,
    LeadingGrid,
    LinspaceGrid,
    LogSNRGrid,
    TrailingGrid,
    UniformGrid,
)
from diffusion_eqx.samplers.heun import HeunSampler
from diffusion_eqx.samplers.predictor_corrector import PredictorCorrectorSampler
from diffusion_eqx.samplers.unipc import UniPC

GRIDS: dict[str, Callable[[], AbstractGrid]] = {
    "trailing": TrailingGrid,
    "leading": LeadingGrid,
    "linspace": LinspaceGrid,
    "uniform": UniformGrid,
    "karras": KarrasGrid,
    "logsnr": LogSNRGrid,
    "exponential": LogSNRGrid,
    "focused": FocusedGrid,
}


@dataclass(frozen=True)
class Entry:
    """What the catalogue says of a sampler.

    `build(denoiser, **fields)` makes it; `parameters` are its numbers that may be chosen at run time, with
    their defaults; `evaluations(steps)` are its calls of the denoiser (None: as many as it takes);
    `stochastic`: whether it accepts a source of noise; `grid`: whether it walks on one.
    """

    build: Callable[..., AbstractSampler]
    parameters: dict[str, float]
    evaluations: Callable[[int], int] | None
    about: str
    use: str
    reference: str
    stochastic: bool = False
    grid: bool = True


def _one(steps: int) -> int:
    return steps


def _two(steps: int) -> int:
    return 2 * steps - 1


def _fixed(build: Callable[..., AbstractSampler], **fixed: Any) -> Callable[..., AbstractSampler]:
    return lambda denoiser, **fields: build(denoiser, **fixed, **fields)


SAMPLERS: dict[str, Entry] = {
    "ddpm": Entry(
        _fixed(DDPMSampler, variance="auto"),
        {"temperature": 1.0},
        _one,
        "ancestral sampling, any number of steps",
        "the original; with 250 steps and more, or with a learnt variance",
        "Ho et al. 2020",
        stochastic=True,
    ),
    "ddim": Entry(
        DDIMSampler,
        {"eta": 0.0, "temperature": 1.0},
        _one,
        "first order; eta from deterministic (0) to ancestral (1)",
        "the default from 20 steps, for inversion and editing",
        "Song, Meng & Ermon 2021",
        stochastic=True,
    ),
    "euler": Entry(
        DDIMSampler,
        {},
        _one,
        "Euler's method in sigma/alpha, which is DDIM with eta 0",
        "where other tools say `euler`",
        "Karras et al. 2022",
    ),
    "euler_ancestral": Entry(
        _fixed(DDIMSampler, eta=1.0),
        {"temperature": 1.0},
        _one,
        "Euler's method with ancestral noise, which is DDIM with eta 1",
        "where other tools say `euler_a`",
        "k-diffusion",
        stochastic=True,
    ),
    "heun": Entry(
        HeunSampler,
        {},
        _two,
        "second order, deterministic, two evaluations a step",
        "from 10 steps; robust",
        "Karras et al. 2022, algorithm 1",
    ),
    "edm": Entry(
        HeunSampler,
        {"churn": 40.0, "temperature": 1.0},
        _two,
        "Heun's method with churn",
        "from 50 steps, where noise mends the network's errors",
        "Karras et al. 2022, algorithm 2",
        stochastic=True,
    ),
    "dpmpp_2s": Entry(
        DPMSolverPlusPlus2S,
        {},
        _two,
        "second order, no memory, two evaluations a step",
        "where the denoiser changes between steps",
        "Lu et al. 2022, algorithm 1",
    ),
    "dpmpp_2m": Entry(
        DPMSolverPlusPlus,
        {},
        _one,
        "second order, one evaluation a step",
        "10 to 30 steps, under strong guidance too",
        "Lu et al. 2022, algorithm 2",
    ),
    "dpmpp_3m": Entry(
        _fixed(DPMSolverPlusPlus, order=3),
        {},
        _one,
        "third order, one evaluation a step",
        "15 steps and more, with little guidance",
        "Lu et al. 2022; third order made exact",
    ),
    "sde_dpmpp_2m": Entry(
        _fixed(DPMSolverPlusPlus),
        {"eta": 1.0, "temperature": 1.0},
        _one,
        "the reverse SDE by the second-order exponential integrator",
        "20 steps and more, where fresh noise is wanted",
        "Lu et al. 2022, section 5",
        stochastic=True,
    ),
    "sde_dpmpp_3m": Entry(
        _fixed(DPMSolverPlusPlus, order=3),
        {"eta": 1.0, "temperature": 1.0},
        _one,
        "the same with third-order drift",
        "30 steps and more",
        "k-diffusion; third order made exact",
        stochastic=True,
    ),
    "unipc": Entry(
        UniPC,
        {},
        _one,
        "predictor of second and corrector of third order, one evaluation a step",
        "recommended, from 5 steps",
        "Zhao et al. 2023",
    ),
    "deis": Entry(
        DEISSampler,
        {},
        _one,
        "third-order extrapolation of eps in log sigma",
        "from 5 steps",
        "Zhang & Chen 2023",
    ),
    "lms": Entry(
        LMSSampler,
        {},
        _one,
        "fourth-order extrapolation of eps in sigma",
        "for comparison with older tools",
        "k-diffusion",
    ),
    "predictor_corrector": Entry(
        PredictorCorrectorSampler,
        {"snr": 0.16, "temperature": 1.0},
        _two,
        "an ancestral step and a Langevin step in turn",
        "score models, hundreds of steps",
        "Song et al. 2021, algorithms 4 and 5",
        stochastic=True,
    ),
    "consistency": Entry(
        ConsistencySampler,
        {"temperature": 1.0},
        _one,
        "x0, noised afresh, again and again",
        "consistency models only, 1 to 4 steps",
        "Song et al. 2023, algorithm 1",
        stochastic=True,
    ),
}

# Solvers of diffrax by name: `diffrax:Tsit5` and so on.
_FAMILIES: dict[str, tuple[Callable[..., AbstractSampler], Entry]] = {
    "diffrax": (
        DiffraxODESampler,
        Entry(
            DiffraxODESampler,
            {},
            None,
            "the probability-flow ODE by a solver of diffrax, fixed steps",
            "research on solvers; `diffrax:Heun`, `diffrax:Tsit5`, `diffrax:Dopri5`, …",
            "Kidger 2021",
        ),
    ),
    "adaptive": (
        DiffraxAdaptiveSampler,
        Entry(
            DiffraxAdaptiveSampler,
            {},
            None,
            "the probability-flow ODE, adaptive; steps are the most that may be taken",
            "an accuracy asked for rather than a cost; `adaptive:Tsit5`, `adaptive:Dopri5`, …",
            "Song et al. 2021, section 4.3",
            grid=False,
        ),
    ),
    "sde": (
        DiffraxSDESampler,
        Entry(
            DiffraxSDESampler,
            {"temperature": 1.0},
            None,
            "the reverse SDE by a solver of diffrax, fixed steps",
            "hundreds of steps; `sde:Euler` (Euler-Maruyama), `sde:Heun`, `sde:ShARK`, …",
            "Song et al. 2021, section 4.1",
            stochastic=True,
        ),
    ),
    "adaptive-sde": (
        _fixed(DiffraxAdaptiveSampler, path=BrownianNoise()),
        Entry(
            DiffraxAdaptiveSampler,
            {},
            None,
            "the reverse SDE along one Brownian path, adaptive",
            "hundreds of steps; `adaptive-sde:Heun`",
            "Song et al. 2021",
            grid=False,
        ),
    ),
}
FAMILIES: dict[str, Entry] = {name: entry for name, (_, entry) in _FAMILIES.items()}


def find_sampler(name: str) -> Entry:
    """The entry of that name: one of `SAMPLERS`, or `FAMILY:Solver` with any solver of diffrax.

    **Raises:** `ValueError` that lists what there is.
    """
    if name in SAMPLERS:
        return SAMPLERS[name]
    family, _, solver_name = name.partition(":")
    if family in _FAMILIES and solver_name:
        build, entry = _FAMILIES[family]
        solver = _solver(solver_name, adaptive=family.startswith("adaptive"))
        made = _fixed(build, solver=solver)
        return Entry(**{**vars(entry), "build": made})
    raise ValueError(
        f"unknown sampler {name!r}; choose one of {', '.join(SAMPLERS)}, or a solver of diffrax as in "
        "diffrax:Heun, adaptive:Tsit5, sde:Euler, adaptive-sde:Heun"
    )


def find_grid(name: str) -> AbstractGrid:
    """The grid of that name.

    **Raises:** `ValueError` that lists what there is.
    """
    if name not in GRIDS:
        raise ValueError(f"unknown grid {name!r}; choose one of {', '.join(GRIDS)}")
    return GRIDS[name]()


def build_sampler(
    name: str,
    denoiser: AbstractDenoiser,
    *,
    grid: AbstractGrid | str | None = None,
    noise: AbstractNoise | None = None,
    **parameters: Any,
) -> AbstractSampler:
    """The sampler of that name over a denoiser; see `find_sampler`.

    `grid` and `noise` default to the sampler's own; `parameters` are numbers, possibly traced, of those
    that its entry lists.

    **Raises:** `ValueError` for an unknown name, or what the sampler does not have.
    """
    entry = find_sampler(name)
    unknown = sorted(parameters.keys() - entry.parameters.keys())
    if unknown:
        known = ", ".join(entry.parameters) or "none"
        raise ValueError(f"the sampler {name!r} has no parameter {unknown[0]!r}; it has {known}")
    fields: dict[str, Any] = {**entry.parameters, **parameters}
    if grid is not None:
        if not entry.grid:
            raise ValueError(f"the sampler {name!r} chooses its own times; leave out the grid")
        fields["grid"] = find_grid(grid) if isinstance(grid, str) else grid
    if noise is not None:
        if not entry.stochastic:
            raise ValueError(f"the sampler {name!r} draws no noise of its own; leave out `noise`")
        fields["noise"] = noise
    return entry.build(denoiser, **fields)


def _solver(name: str, *, adaptive: bool) -> diffrax.AbstractSolver:
    kind = getattr(diffrax, name, None)
    wanted = diffrax.AbstractAdaptiveSolver if adaptive else diffrax.AbstractSolver
    if not (isinstance(kind, type) and issubclass(kind, wanted)):
        what = "no adaptive solver" if adaptive else "no solver"
        raise ValueError(f"diffrax has {what} called {name!r}; e.g. Heun, Tsit5 or Dopri5")
    if issubclass(kind, diffrax.AbstractImplicitSolver):
        raise ValueError(
            f"{name} is an implicit solver, whose root finding no sampler here provides; the probability "
            "flow is not stiff: choose an explicit one, e.g. Heun, Tsit5 or Dopri5"
        )
    return kind()
