"""Guidance: wrappers from denoiser to denoiser."""

from diffusion_eqx.guidance.classifier_free import ClassifierFreeGuidance as ClassifierFreeGuidance
from diffusion_eqx.guidance.clip import ClipDenoised as ClipDenoised
