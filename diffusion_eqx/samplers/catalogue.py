"""Every sampler and grid by name, for command lines, configurations and documentation."""

import dataclasses

import diffrax

from diffusion_eqx.samplers.adams_bashforth import DEISSampler, LMSSampler
from diffusion_eqx.samplers.base import AbstractSampler
from diffusion_eqx.samplers.consistency import ConsistencySampler
from diffusion_eqx.samplers.ddim import DDIMSampler
from diffusion_eqx.samplers.ddpm import DDPMSampler
from diffusion_eqx.samplers.diffrax_adaptive import DiffraxAdaptiveSampler
from diffusion_eqx.samplers.diffrax_fixed import DiffraxODESampler, DiffraxSDESampler
from diffusion_eqx.samplers.dpm_solver import DPMSolverPlusPlus2SSampler, DPMSolverPlusPlusSampler
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
from diffusion_eqx.samplers.sources import BrownianNoise
from diffusion_eqx.samplers.unipc import UniPCSampler

GRIDS: dict[str, AbstractGrid] = {
    "trailing": TrailingGrid(),
    "leading": LeadingGrid(),
    "linspace": LinspaceGrid(),
    "uniform": UniformGrid(),
    "karras": KarrasGrid(),
    "logsnr": LogSNRGrid(),
    "exponential": LogSNRGrid(),
    "focused": FocusedGrid(),
}

SAMPLERS: dict[str, AbstractSampler] = {
    "ddpm": DDPMSampler(),
    "ddim": DDIMSampler(),
    "euler": DDIMSampler(),
    "euler-ancestral": DDIMSampler(eta=1.0),
    "heun": HeunSampler(),
    "edm": HeunSampler(churn=40.0),
    "dpm++2s": DPMSolverPlusPlus2SSampler(),
    "dpm++2m": DPMSolverPlusPlusSampler(),
    "dpm++3m": DPMSolverPlusPlusSampler(order=3),
    "dpm++2m-sde": DPMSolverPlusPlusSampler(eta=1.0),
    "dpm++3m-sde": DPMSolverPlusPlusSampler(eta=1.0, order=3),
    "unipc": UniPCSampler(),
    "deis": DEISSampler(),
    "lms": LMSSampler(),
    "predictor-corrector": PredictorCorrectorSampler(),
    "consistency": ConsistencySampler(),
}

# Those that take a solver of diffrax by its name: `diffrax:Tsit5` and so on. The SDE is rough, so
# that a tolerance as small as the ODE's would take thousands of steps.
FAMILIES: dict[str, AbstractSampler] = {
    "diffrax": DiffraxODESampler(),
    "adaptive": DiffraxAdaptiveSampler(),
    "sde": DiffraxSDESampler(),
    "adaptive-sde": DiffraxAdaptiveSampler(
        diffrax.Heun(), rtol=5e-2, atol=5e-2, path=BrownianNoise()
    ),
}


def find_sampler(name: str) -> AbstractSampler:
    """The sampler of that name: one of `SAMPLERS`, or `FAMILY:Solver` with any explicit solver of diffrax.

    **Raises:** `ValueError` that lists what there is.
    """
    if name in SAMPLERS:
        return SAMPLERS[name]
    family, _, solver = name.partition(":")
    if family in FAMILIES and solver:
        adaptive = FAMILIES[family].chooses_levels
        return dataclasses.replace(FAMILIES[family], solver=_solver(solver, adaptive=adaptive))
    raise ValueError(
        f"unknown sampler {name!r}; choose one of {', '.join(SAMPLERS)}, or a solver of "
        "diffrax as in diffrax:Heun, "
        "adaptive:Tsit5, sde:Euler, adaptive-sde:Heun"
    )


def find_grid(name: str) -> AbstractGrid:
    """The grid of that name.

    **Raises:** `ValueError` that lists what there is.
    """
    if name not in GRIDS:
        raise ValueError(f"unknown grid {name!r}; choose one of {', '.join(GRIDS)}")
    return GRIDS[name]


def with_grid(sampler: AbstractSampler, grid: AbstractGrid | str) -> AbstractSampler:
    """The sampler on another grid, given as an object or by its name.

    **Raises:** `ValueError` for an unknown name, or a sampler that chooses its own levels.
    """
    if sampler.chooses_levels:
        raise ValueError(f"{type(sampler).__name__} chooses its own levels; leave out the grid")
    return dataclasses.replace(sampler, grid=find_grid(grid) if isinstance(grid, str) else grid)


def _solver(name: str, *, adaptive: bool) -> diffrax.AbstractSolver:
    kind = getattr(diffrax, name, None)
    wanted = diffrax.AbstractAdaptiveSolver if adaptive else diffrax.AbstractSolver
    if not (isinstance(kind, type) and issubclass(kind, wanted)):
        what = "no adaptive solver" if adaptive else "no solver"
        raise ValueError(f"diffrax has {what} called {name!r}; e.g. Heun, Tsit5 or Dopri5")
    if issubclass(kind, diffrax.AbstractImplicitSolver):
        raise ValueError(
            f"{name} is an implicit solver, whose root finding no sampler here provides; the "
            "probability flow is not "
            "stiff: choose an explicit one, e.g. Heun, Tsit5 or Dopri5"
        )
    return kind()
