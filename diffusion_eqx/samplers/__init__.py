"""Samplers, the grids they walk on, where their noise comes from, and the drivers that run them."""

from diffusion_eqx._face import face as _face
from diffusion_eqx._values import Number as Number
from diffusion_eqx._values import number as number
from diffusion_eqx._values import numbers as numbers
from diffusion_eqx._values import with_numbers as with_numbers
from diffusion_eqx.samplers.adams_bashforth import DEISSampler as DEISSampler
from diffusion_eqx.samplers.adams_bashforth import LMSSampler as LMSSampler
from diffusion_eqx.samplers.base import AbstractSampler as AbstractSampler
from diffusion_eqx.samplers.base import AbstractSamplerWrapper as AbstractSamplerWrapper
from diffusion_eqx.samplers.base import Bound as Bound
from diffusion_eqx.samplers.base import Walk as Walk
from diffusion_eqx.samplers.base import check_pair_kept as check_pair_kept
from diffusion_eqx.samplers.base import unless_clean as unless_clean
from diffusion_eqx.samplers.catalogue import FAMILIES as FAMILIES
from diffusion_eqx.samplers.catalogue import GRIDS as GRIDS
from diffusion_eqx.samplers.catalogue import SAMPLERS as SAMPLERS
from diffusion_eqx.samplers.catalogue import find_grid as find_grid
from diffusion_eqx.samplers.catalogue import find_sampler as find_sampler
from diffusion_eqx.samplers.catalogue import with_grid as with_grid
from diffusion_eqx.samplers.consistency import ConsistencySampler as ConsistencySampler
from diffusion_eqx.samplers.ddim import DDIMSampler as DDIMSampler
from diffusion_eqx.samplers.ddpm import DDPMSampler as DDPMSampler
from diffusion_eqx.samplers.ddpm import posterior_mean as posterior_mean
from diffusion_eqx.samplers.devices import split_over_devices as split_over_devices
from diffusion_eqx.samplers.devices import use_all_cores as use_all_cores
from diffusion_eqx.samplers.diffrax_adaptive import (
    DiffraxAdaptiveSampler as DiffraxAdaptiveSampler,
)
from diffusion_eqx.samplers.diffrax_fixed import DiffraxODESampler as DiffraxODESampler
from diffusion_eqx.samplers.diffrax_fixed import DiffraxSDESampler as DiffraxSDESampler
from diffusion_eqx.samplers.dpm_solver import (
    DPMSolverPlusPlus2SSampler as DPMSolverPlusPlus2SSampler,
)
from diffusion_eqx.samplers.dpm_solver import DPMSolverPlusPlusSampler as DPMSolverPlusPlusSampler
from diffusion_eqx.samplers.drive import begin_from_noise as begin_from_noise
from diffusion_eqx.samplers.drive import fit_cond as fit_cond
from diffusion_eqx.samplers.drive import sample as sample
from diffusion_eqx.samplers.drive import sample_between as sample_between
from diffusion_eqx.samplers.drive import sample_from as sample_from
from diffusion_eqx.samplers.drive import trajectory as trajectory
from diffusion_eqx.samplers.grid import AbstractGrid as AbstractGrid
from diffusion_eqx.samplers.grid import AbstractSigmaGrid as AbstractSigmaGrid
from diffusion_eqx.samplers.grid import AbstractTimestepGrid as AbstractTimestepGrid
from diffusion_eqx.samplers.grid import FocusedGrid as FocusedGrid
from diffusion_eqx.samplers.grid import GivenGrid as GivenGrid
from diffusion_eqx.samplers.grid import KarrasGrid as KarrasGrid
from diffusion_eqx.samplers.grid import LeadingGrid as LeadingGrid
from diffusion_eqx.samplers.grid import LinspaceGrid as LinspaceGrid
from diffusion_eqx.samplers.grid import LogSNRGrid as LogSNRGrid
from diffusion_eqx.samplers.grid import TrailingGrid as TrailingGrid
from diffusion_eqx.samplers.grid import UniformGrid as UniformGrid
from diffusion_eqx.samplers.heun import HeunSampler as HeunSampler
from diffusion_eqx.samplers.noise import draw as draw
from diffusion_eqx.samplers.noise import exact_normal as exact_normal
from diffusion_eqx.samplers.noise import image_keys as image_keys
from diffusion_eqx.samplers.noise import quantile_of_bits as quantile_of_bits
from diffusion_eqx.samplers.predictor_corrector import (
    PredictorCorrectorSampler as PredictorCorrectorSampler,
)
from diffusion_eqx.samplers.sources import AbstractNoise as AbstractNoise
from diffusion_eqx.samplers.sources import BrownianNoise as BrownianNoise
from diffusion_eqx.samplers.sources import IndependentNoise as IndependentNoise
from diffusion_eqx.samplers.state import State as State
from diffusion_eqx.samplers.temperature import temperature as temperature
from diffusion_eqx.samplers.unipc import UniPCSampler as UniPCSampler

__dir__ = _face(globals())
