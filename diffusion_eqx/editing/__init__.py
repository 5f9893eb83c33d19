"""Editing of given images: inversion, interpolation, SDEdit, inpainting; and drawing coarse to fine."""

from diffusion_eqx._face import face as _face
from diffusion_eqx.editing.edit import edit_by_inversion as edit_by_inversion
from diffusion_eqx.editing.fixed_point import fixed_point as fixed_point
from diffusion_eqx.editing.inpainting import inpaint as inpaint
from diffusion_eqx.editing.inpainting_sampler import KNOWN as KNOWN
from diffusion_eqx.editing.inpainting_sampler import KNOWN_MASK as KNOWN_MASK
from diffusion_eqx.editing.inpainting_sampler import InpaintingSampler as InpaintingSampler
from diffusion_eqx.editing.interpolation import interpolate as interpolate
from diffusion_eqx.editing.inversion import ddim_invert as ddim_invert
from diffusion_eqx.editing.inversion import ddim_invert_to as ddim_invert_to
from diffusion_eqx.editing.multiscale import sample_multiscale as sample_multiscale
from diffusion_eqx.editing.sdedit import sdedit as sdedit
from diffusion_eqx.editing.slerp import slerp as slerp
from diffusion_eqx.editing.source import Model as Model
from diffusion_eqx.editing.source import Source as Source
from diffusion_eqx.editing.strength import begin_index as begin_index

__dir__ = _face(globals())
