"""Training: `train` a model in one line, or `fit` any network by any loss."""

from diffusion_eqx._face import face as _face
from diffusion_eqx.training.autoencoder import AutoencoderLoss as AutoencoderLoss
from diffusion_eqx.training.autoencoder import encode_dataset as encode_dataset
from diffusion_eqx.training.autoencoder import measure_scale_factor as measure_scale_factor
from diffusion_eqx.training.autoencoder import train_autoencoder as train_autoencoder
from diffusion_eqx.training.callback import Callback as Callback
from diffusion_eqx.training.checkpoint import Checkpoints as Checkpoints
from diffusion_eqx.training.checks import DataMismatch as DataMismatch
from diffusion_eqx.training.checks import check_data as check_data
from diffusion_eqx.training.classifier import check_labelled as check_labelled
from diffusion_eqx.training.classifier import fit_classifier as fit_classifier
from diffusion_eqx.training.classifier import train_noisy_classifier as train_noisy_classifier
from diffusion_eqx.training.folder import ResumeError as ResumeError
from diffusion_eqx.training.log import Log as Log
from diffusion_eqx.training.loop import TrainingDiverged as TrainingDiverged
from diffusion_eqx.training.loop import TrainingInterrupted as TrainingInterrupted
from diffusion_eqx.training.loop import fit as fit
from diffusion_eqx.training.model import train as train
from diffusion_eqx.training.parts import decayed as decayed
from diffusion_eqx.training.parts import trainable as trainable
from diffusion_eqx.training.preview import Preview as Preview
from diffusion_eqx.training.progress import Progress as Progress
from diffusion_eqx.training.recipe import Recipe as Recipe
from diffusion_eqx.training.recipe import make_recipe as make_recipe
from diffusion_eqx.training.run import Run as Run
from diffusion_eqx.training.state import TrainState as TrainState
from diffusion_eqx.training.state import averaged as averaged
from diffusion_eqx.training.step import train_step as train_step

__dir__ = _face(globals())
