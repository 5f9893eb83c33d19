"""Noise schedules: alpha(t) and sigma(t), the levels that they make, and what follows from them."""

from diffusion_eqx._face import face as _face
from diffusion_eqx._values import number as number
from diffusion_eqx.schedules.base import AbstractSchedule as AbstractSchedule
from diffusion_eqx.schedules.continuous import EDMSchedule as EDMSchedule
from diffusion_eqx.schedules.continuous import FlowSchedule as FlowSchedule
from diffusion_eqx.schedules.continuous import VESchedule as VESchedule
from diffusion_eqx.schedules.continuous import VPSchedule as VPSchedule
from diffusion_eqx.schedules.discrete import DiscreteSchedule as DiscreteSchedule
from diffusion_eqx.schedules.discrete import cosine_betas as cosine_betas
from diffusion_eqx.schedules.discrete import linear_betas as linear_betas
from diffusion_eqx.schedules.discrete import rescale_zero_terminal_snr as rescale_zero_terminal_snr
from diffusion_eqx.schedules.discrete import scaled_linear_betas as scaled_linear_betas
from diffusion_eqx.schedules.discrete import sigmoid_betas as sigmoid_betas
from diffusion_eqx.schedules.level import GREATEST_LOG_SNR as GREATEST_LOG_SNR
from diffusion_eqx.schedules.level import LEAST_LOG_SNR as LEAST_LOG_SNR
from diffusion_eqx.schedules.level import NoiseLevel as NoiseLevel
from diffusion_eqx.schedules.level import over as over
from diffusion_eqx.schedules.level import safe_sqrt as safe_sqrt

__dir__ = _face(globals())
