"""Noise schedules: alpha(t), sigma(t) and what follows from them."""

from diffusion_eqx.schedules.base import AbstractSchedule as AbstractSchedule
from diffusion_eqx.schedules.base import like as like
from diffusion_eqx.schedules.discrete import DiscreteSchedule as DiscreteSchedule
from diffusion_eqx.schedules.discrete import cosine_betas as cosine_betas
from diffusion_eqx.schedules.discrete import linear_betas as linear_betas
from diffusion_eqx.schedules.discrete import scaled_linear_betas as scaled_linear_betas
