"""diffusion_eqx: diffusion models in Equinox, with samplers that export to a native program."""

from importlib.metadata import version

__version__ = version("diffusion-eqx")
