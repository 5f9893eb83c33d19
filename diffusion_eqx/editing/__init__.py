"""Editing of given images: inversion, interpolation, SDEdit, inpainting; and drawing coarse to fine."""

from diffusion_eqx.editing.edit import edit_by_inversion as edit_by_inversion
from diffusion_eqx.editing.inpainting import InpaintingSampler as InpaintingSampler
from diffusion_eqx.editing.interpolation import interpolate as interpolate
from diffusion_eqx.editing.interpolation import slerp as slerp
from diffusion_eqx.editing.inversion import ddim_invert as ddim_invert
from diffusion_eqx.editing.inversion import ddim_invert_to as ddim_invert_to
from diffusion_eqx.editing.multiscale import sample_multiscale as sample_multiscale
from diffusion_eqx.editing.noising import begin_index as begin_index
from diffusion_eqx.editing.noising import noised as noised
from diffusion_eqx.editing.sdedit import sdedit as sdedit
