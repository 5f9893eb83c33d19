"""Frozen, validated configurations with a JSON form. No jax is imported here."""

from diffusion_eqx._face import face as _face
from diffusion_eqx.config.backbone import BackboneConfig as BackboneConfig
from diffusion_eqx.config.backbone import DiTBackboneConfig as DiTBackboneConfig
from diffusion_eqx.config.backbone import UNetBackboneConfig as UNetBackboneConfig
from diffusion_eqx.config.backbone import dit_size as dit_size
from diffusion_eqx.config.base import from_json as from_json
from diffusion_eqx.config.base import to_json as to_json
from diffusion_eqx.config.classifier import NoisyClassifierConfig as NoisyClassifierConfig
from diffusion_eqx.config.latent import AutoencoderConfig as AutoencoderConfig
from diffusion_eqx.config.latent import LDMConfig as LDMConfig
from diffusion_eqx.config.model import AbstractDiffusionConfig as AbstractDiffusionConfig
from diffusion_eqx.config.model import AbstractModelConfig as AbstractModelConfig
from diffusion_eqx.config.model import DDIMConfig as DDIMConfig
from diffusion_eqx.config.model import DDPMConfig as DDPMConfig
from diffusion_eqx.config.model import DiTConfig as DiTConfig
from diffusion_eqx.config.model import ModelConfig as ModelConfig
from diffusion_eqx.config.model import SamplerConfig as SamplerConfig
from diffusion_eqx.config.model import ScoreDiffusionConfig as ScoreDiffusionConfig
from diffusion_eqx.config.model import ScorePrediction as ScorePrediction
from diffusion_eqx.config.schedule import NoiseScheduleConfig as NoiseScheduleConfig
from diffusion_eqx.config.training import DEFAULT_WEIGHTING as DEFAULT_WEIGHTING
from diffusion_eqx.config.training import OPTIMIZERS as OPTIMIZERS
from diffusion_eqx.config.training import DiffusionTrainingConfig as DiffusionTrainingConfig
from diffusion_eqx.config.training import LossWeighting as LossWeighting
from diffusion_eqx.config.training import Precision as Precision
from diffusion_eqx.config.training import PredictionType as PredictionType
from diffusion_eqx.config.training import TimestepSampling as TimestepSampling
from diffusion_eqx.config.training import TrainingConfig as TrainingConfig

__dir__ = _face(globals())
