"""Guidance: values that bend a denoiser's prediction, and `Guided`, the denoiser that carries them."""

from diffusion_eqx._face import face as _face
from diffusion_eqx._values import number as number
from diffusion_eqx._values import numbers as numbers
from diffusion_eqx._values import with_numbers as with_numbers
from diffusion_eqx.guidance.autoguidance import Autoguidance as Autoguidance
from diffusion_eqx.guidance.base import AbstractGuidance as AbstractGuidance
from diffusion_eqx.guidance.base import AbstractLimiter as AbstractLimiter
from diffusion_eqx.guidance.base import AbstractTwoBranchGuidance as AbstractTwoBranchGuidance
from diffusion_eqx.guidance.base import Guided as Guided
from diffusion_eqx.guidance.base import guidance_of as guidance_of
from diffusion_eqx.guidance.base import keeps_pair as keeps_pair
from diffusion_eqx.guidance.base import names_taken as names_taken
from diffusion_eqx.guidance.base import take as take
from diffusion_eqx.guidance.branches import AdaptiveProjectedGuidance as AdaptiveProjectedGuidance
from diffusion_eqx.guidance.branches import CFGPlusPlusGuidance as CFGPlusPlusGuidance
from diffusion_eqx.guidance.branches import ClassifierFreeGuidance as ClassifierFreeGuidance
from diffusion_eqx.guidance.branches import both_branches as both_branches
from diffusion_eqx.guidance.branches import within as within
from diffusion_eqx.guidance.catalogue import GUIDANCE as GUIDANCE
from diffusion_eqx.guidance.catalogue import find_guidance as find_guidance
from diffusion_eqx.guidance.classifier import ClassifierGuidance as ClassifierGuidance
from diffusion_eqx.guidance.conjugate_gradient import conjugate_gradient as conjugate_gradient
from diffusion_eqx.guidance.dps import DPSGuidance as DPSGuidance
from diffusion_eqx.guidance.limiters import Clipping as Clipping
from diffusion_eqx.guidance.limiters import DynamicThresholding as DynamicThresholding
from diffusion_eqx.guidance.mmps import MomentMatchingGuidance as MomentMatchingGuidance
from diffusion_eqx.guidance.pigdm import PseudoInverseGuidance as PseudoInverseGuidance
from diffusion_eqx.guidance.posterior import AbstractPosteriorGuidance as AbstractPosteriorGuidance

__dir__ = _face(globals())
