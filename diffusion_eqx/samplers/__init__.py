"""Samplers (`init`, `step`, `finish`), the grids they walk on, and the drivers that run them."""

from diffusion_eqx.samplers.base import AbstractSampler as AbstractSampler
from diffusion_eqx.samplers.base import State as State
from diffusion_eqx.samplers.ddim import DDIMSampler as DDIMSampler
from diffusion_eqx.samplers.ddpm import DDPMSampler as DDPMSampler
from diffusion_eqx.samplers.drive import sample as sample
from diffusion_eqx.samplers.drive import sample_from as sample_from
from diffusion_eqx.samplers.drive import trajectory as trajectory
from diffusion_eqx.samplers.grid import AbstractGrid as AbstractGrid
from diffusion_eqx.samplers.grid import LeadingGrid as LeadingGrid
from diffusion_eqx.samplers.grid import TrailingGrid as TrailingGrid
from diffusion_eqx.samplers.grid import UniformGrid as UniformGrid
