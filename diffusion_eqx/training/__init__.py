"""Training: the step, the run around it, and its checkpoints."""

from diffusion_eqx.training.autoencoder import AutoencoderLoss as AutoencoderLoss
from diffusion_eqx.training.autoencoder import encode_dataset as encode_dataset
from diffusion_eqx.training.autoencoder import measure_scale_factor as measure_scale_factor
from diffusion_eqx.training.autoencoder import train_autoencoder as train_autoencoder
from diffusion_eqx.training.checkpoint import Checkpoints as Checkpoints
from diffusion_eqx.training.checkpoint import ResumeError as ResumeError
from diffusion_eqx.training.classifier import check_labelled as check_labelled
from diffusion_eqx.training.classifier import fit_classifier as fit_classifier
from diffusion_eqx.training.classifier import train_noisy_classifier as train_noisy_classifier
from diffusion_eqx.training.loop import Cadence as Cadence
from diffusion_eqx.training.loop import TrainingDiverged as TrainingDiverged
from diffusion_eqx.training.loop import TrainingInterrupted as TrainingInterrupted
from diffusion_eqx.training.loop import fit as fit
from diffusion_eqx.training.preview import Preview as Preview
from diffusion_eqx.training.step import Recipe as Recipe
from diffusion_eqx.training.step import TrainState as TrainState
from diffusion_eqx.training.step import averaged as averaged
from diffusion_eqx.training.step import make_recipe as make_recipe
from diffusion_eqx.training.step import train_step as train_step
