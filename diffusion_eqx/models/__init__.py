"""The guide's models, and models as files."""

from diffusion_eqx.models.base import AbstractDiffusionModel as AbstractDiffusionModel
from diffusion_eqx.models.classifier import NoisyClassifier as NoisyClassifier
from diffusion_eqx.models.classifier_file import SavedClassifier as SavedClassifier
from diffusion_eqx.models.classifier_file import load_classifier as load_classifier
from diffusion_eqx.models.classifier_file import save_classifier as save_classifier
from diffusion_eqx.models.ddim import DDIMModel as DDIMModel
from diffusion_eqx.models.ddpm import DDPMModel as DDPMModel
from diffusion_eqx.models.dit import DiTModel as DiTModel
from diffusion_eqx.models.files import ModelFileError as ModelFileError
from diffusion_eqx.models.files import SavedModel as SavedModel
from diffusion_eqx.models.files import load_model as load_model
from diffusion_eqx.models.files import save_model as save_model
from diffusion_eqx.models.latent import LDMModel as LDMModel
from diffusion_eqx.models.score import ScoreDiffusionModel as ScoreDiffusionModel
