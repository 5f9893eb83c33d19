"""Losses: the error of a network, what it weighs at each noise level, and which levels are trained."""

from diffusion_eqx._face import face as _face
from diffusion_eqx.losses.adaptive import AdaptiveLoss as AdaptiveLoss
from diffusion_eqx.losses.adaptive import Seen as Seen
from diffusion_eqx.losses.base import AbstractLoss as AbstractLoss
from diffusion_eqx.losses.build import build_times as build_times
from diffusion_eqx.losses.build import build_weight as build_weight
from diffusion_eqx.losses.build import training_loss as training_loss
from diffusion_eqx.losses.denoising import DenoisingLoss as DenoisingLoss
from diffusion_eqx.losses.denoising import Noised as Noised
from diffusion_eqx.losses.denoising import drop_cond as drop_cond
from diffusion_eqx.losses.draws import Draws as Draws
from diffusion_eqx.losses.errors import ERRORS as ERRORS
from diffusion_eqx.losses.importance import Importance as Importance
from diffusion_eqx.losses.times import AbstractTimes as AbstractTimes
from diffusion_eqx.losses.times import CosineTimes as CosineTimes
from diffusion_eqx.losses.times import LogitNormalTimes as LogitNormalTimes
from diffusion_eqx.losses.times import LogNormalTimes as LogNormalTimes
from diffusion_eqx.losses.times import ModeTimes as ModeTimes
from diffusion_eqx.losses.times import ShiftedTimes as ShiftedTimes
from diffusion_eqx.losses.times import UniformTimes as UniformTimes
from diffusion_eqx.losses.uncertainty import Uncertainty as Uncertainty
from diffusion_eqx.losses.variational import HybridLoss as HybridLoss
from diffusion_eqx.losses.variational import bound_terms as bound_terms
from diffusion_eqx.losses.variational import (
    discretized_log_likelihood as discretized_log_likelihood,
)
from diffusion_eqx.losses.weights import P2 as P2
from diffusion_eqx.losses.weights import SNR as SNR
from diffusion_eqx.losses.weights import AbstractWeight as AbstractWeight
from diffusion_eqx.losses.weights import Debiased as Debiased
from diffusion_eqx.losses.weights import EDMWeight as EDMWeight
from diffusion_eqx.losses.weights import MinSNR as MinSNR
from diffusion_eqx.losses.weights import SigmoidWeight as SigmoidWeight
from diffusion_eqx.losses.weights import SoftMinSNR as SoftMinSNR
from diffusion_eqx.losses.weights import Uniform as Uniform

__dir__ = _face(globals())
