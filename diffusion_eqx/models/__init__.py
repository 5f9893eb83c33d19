"""Models: a configuration, a denoiser and how samples are decoded; and models as files."""

from diffusion_eqx._face import face as _face
from diffusion_eqx.models.aliases import AbstractAliasedModel as AbstractAliasedModel
from diffusion_eqx.models.aliases import AbstractPixelModel as AbstractPixelModel
from diffusion_eqx.models.array_file import ModelFileError as ModelFileError
from diffusion_eqx.models.array_file import named_arrays as named_arrays
from diffusion_eqx.models.array_file import path_name as path_name
from diffusion_eqx.models.array_file import read_arrays as read_arrays
from diffusion_eqx.models.array_file import write_arrays as write_arrays
from diffusion_eqx.models.base import AbstractDiffusionModel as AbstractDiffusionModel
from diffusion_eqx.models.build import attention_levels as attention_levels
from diffusion_eqx.models.build import build_autoencoder as build_autoencoder
from diffusion_eqx.models.build import build_backbone as build_backbone
from diffusion_eqx.models.build import build_denoiser as build_denoiser
from diffusion_eqx.models.build import build_dit as build_dit
from diffusion_eqx.models.build import build_schedule as build_schedule
from diffusion_eqx.models.build import build_unet as build_unet
from diffusion_eqx.models.changed import with_network as with_network
from diffusion_eqx.models.changed import with_sampler as with_sampler
from diffusion_eqx.models.classifier import NoisyClassifier as NoisyClassifier
from diffusion_eqx.models.classifier_file import SavedClassifier as SavedClassifier
from diffusion_eqx.models.classifier_file import load_classifier as load_classifier
from diffusion_eqx.models.classifier_file import save_classifier as save_classifier
from diffusion_eqx.models.conditions import condition as condition
from diffusion_eqx.models.ddim import DDIMModel as DDIMModel
from diffusion_eqx.models.ddpm import DDPMModel as DDPMModel
from diffusion_eqx.models.dit import DiTModel as DiTModel
from diffusion_eqx.models.files import Record as Record
from diffusion_eqx.models.files import load_model as load_model
from diffusion_eqx.models.files import model_arrays as model_arrays
from diffusion_eqx.models.files import read_config as read_config
from diffusion_eqx.models.files import read_record as read_record
from diffusion_eqx.models.files import save_model as save_model
from diffusion_eqx.models.kinds import build_model as build_model
from diffusion_eqx.models.latent import LDMModel as LDMModel
from diffusion_eqx.models.plan import GuidanceLike as GuidanceLike
from diffusion_eqx.models.plan import Plan as Plan
from diffusion_eqx.models.score import ScoreDiffusionModel as ScoreDiffusionModel

__dir__ = _face(globals())
