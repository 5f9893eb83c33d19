"""Guidance: wrappers from denoiser to denoiser."""

from diffusion_eqx.guidance.autoguidance import Autoguidance as Autoguidance
from diffusion_eqx.guidance.classifier import ClassifierGuidance as ClassifierGuidance
from diffusion_eqx.guidance.classifier_free import CFGPlusPlus as CFGPlusPlus
from diffusion_eqx.guidance.classifier_free import ClassifierFreeGuidance as ClassifierFreeGuidance
from diffusion_eqx.guidance.clip import ClipDenoised as ClipDenoised
from diffusion_eqx.guidance.clip import DynamicThresholding as DynamicThresholding
from diffusion_eqx.guidance.dps import DPSGuidance as DPSGuidance
from diffusion_eqx.guidance.mmps import MomentMatchingGuidance as MomentMatchingGuidance
from diffusion_eqx.guidance.pigdm import PseudoInverseGuidance as PseudoInverseGuidance
from diffusion_eqx.guidance.posterior import Measurement as Measurement
from diffusion_eqx.guidance.projected import AdaptiveProjectedGuidance as AdaptiveProjectedGuidance
