"""How good images are: class accuracy and Fréchet distance by an independent classifier; distortion."""

from diffusion_eqx.evaluation.classifier import Classifier as Classifier
from diffusion_eqx.evaluation.classifier import accuracy as accuracy
from diffusion_eqx.evaluation.classifier import judge as judge
from diffusion_eqx.evaluation.classifier import train_classifier as train_classifier
from diffusion_eqx.evaluation.distortion import (
    peak_signal_to_noise_ratio as peak_signal_to_noise_ratio,
)
from diffusion_eqx.evaluation.frechet import frechet_distance as frechet_distance
