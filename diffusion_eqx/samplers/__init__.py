"""Samplers (`init`, `step`, `finish`), the grids they walk on, and the drivers that run them."""

from diffusion_eqx.samplers.adams_bashforth import DEISSampler as DEISSampler
from diffusion_eqx.samplers.adams_bashforth import LMSSampler as LMSSampler
from diffusion_eqx.samplers.base import AbstractMethod as AbstractMethod
from diffusion_eqx.samplers.base import AbstractOneStepMethod as AbstractOneStepMethod
from diffusion_eqx.samplers.base import AbstractSampler as AbstractSampler
from diffusion_eqx.samplers.base import ClippedSampler as ClippedSampler
from diffusion_eqx.samplers.base import DecodedSampler as DecodedSampler
from diffusion_eqx.samplers.base import State as State
from diffusion_eqx.samplers.brownian import AbstractNoise as AbstractNoise
from diffusion_eqx.samplers.brownian import BrownianNoise as BrownianNoise
from diffusion_eqx.samplers.brownian import IndependentNoise as IndependentNoise
from diffusion_eqx.samplers.catalogue import FAMILIES as FAMILIES
from diffusion_eqx.samplers.catalogue import GRIDS as GRIDS
from diffusion_eqx.samplers.catalogue import SAMPLERS as SAMPLERS
from diffusion_eqx.samplers.catalogue import build_sampler as build_sampler
from diffusion_eqx.samplers.catalogue import find_grid as find_grid
from diffusion_eqx.samplers.catalogue import find_sampler as find_sampler
from diffusion_eqx.samplers.consistency import ConsistencySampler as ConsistencySampler
from diffusion_eqx.samplers.ddim import DDIMSampler as DDIMSampler
from diffusion_eqx.samplers.ddpm import DDPMSampler as DDPMSampler
from diffusion_eqx.samplers.diffrax_adaptive import (
    DiffraxAdaptiveSampler as DiffraxAdaptiveSampler,
)
from diffusion_eqx.samplers.diffrax_fixed import DiffraxODESampler as DiffraxODESampler
from diffusion_eqx.samplers.diffrax_fixed import DiffraxSDESampler as DiffraxSDESampler
from diffusion_eqx.samplers.dpm_solver import DPMSolverPlusPlus as DPMSolverPlusPlus
from diffusion_eqx.samplers.dpm_solver import DPMSolverPlusPlus2S as DPMSolverPlusPlus2S
from diffusion_eqx.samplers.drive import sample as sample
from diffusion_eqx.samplers.drive import sample_between as sample_between
from diffusion_eqx.samplers.drive import sample_from as sample_from
from diffusion_eqx.samplers.drive import trajectory as trajectory
from diffusion_eqx.samplers.grid import AbstractGrid as AbstractGrid
from diffusion_eqx.samplers.grid import FocusedGrid as FocusedGrid
from diffusion_eqx.samplers.grid import GivenGrid as GivenGrid
from diffusion_eqx.samplers.grid import KarrasGrid as KarrasGrid
from diffusion_eqx.samplers.grid import LeadingGrid as LeadingGrid
from diffusion_eqx.samplers.grid import LinspaceGrid as LinspaceGrid
from diffusion_eqx.samplers.grid import LogSNRGrid as LogSNRGrid
from diffusion_eqx.samplers.grid import TrailingGrid as TrailingGrid
from diffusion_eqx.samplers.grid import UniformGrid as UniformGrid
from diffusion_eqx.samplers.heun import HeunSampler as HeunSampler
from diffusion_eqx.samplers.predictor_corrector import (
    PredictorCorrectorSampler as PredictorCorrectorSampler,
)
from diffusion_eqx.samplers.unipc import UniPC as UniPC
