"""Editing of given images."""

from diffusion_eqx.editing.inversion import ddim_invert as ddim_invert
