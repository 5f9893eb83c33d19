"""The command line: thin, and the only room that prints."""

from diffusion_eqx.cli.errors import explained as explained
from diffusion_eqx.cli.main import main as main
from diffusion_eqx.cli.number_options import read_numbers as read_numbers
from diffusion_eqx.cli.train import train_of as train_of
