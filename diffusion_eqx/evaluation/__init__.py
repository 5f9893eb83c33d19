"""How good a model is: distances of features, neighbours, class accuracy, likelihood, distortion."""

from diffusion_eqx._face import face as _face
from diffusion_eqx.evaluation.classifier import Classifier as Classifier
from diffusion_eqx.evaluation.classifier import ImageClassifier as ImageClassifier
from diffusion_eqx.evaluation.classifier import accuracy as accuracy
from diffusion_eqx.evaluation.classifier import judge as judge
from diffusion_eqx.evaluation.classifier import train_classifier as train_classifier
from diffusion_eqx.evaluation.clean_classifier import CleanClassifier as CleanClassifier
from diffusion_eqx.evaluation.distortion import (
    peak_signal_to_noise_ratio as peak_signal_to_noise_ratio,
)
from diffusion_eqx.evaluation.features import ClassifierFeatures as ClassifierFeatures
from diffusion_eqx.evaluation.features import Features as Features
from diffusion_eqx.evaluation.features import NamedFeatures as NamedFeatures
from diffusion_eqx.evaluation.features import extract as extract
from diffusion_eqx.evaluation.frechet import frechet_distance as frechet_distance
from diffusion_eqx.evaluation.kernel import kernel_distance as kernel_distance
from diffusion_eqx.evaluation.likelihood import Likelihood as Likelihood
from diffusion_eqx.evaluation.likelihood import image_bits_per_dim as image_bits_per_dim
from diffusion_eqx.evaluation.likelihood import log_likelihood as log_likelihood
from diffusion_eqx.evaluation.measures import evaluate as evaluate
from diffusion_eqx.evaluation.model_likelihood import bits_per_dim as bits_per_dim
from diffusion_eqx.evaluation.neighbours import DensityCoverage as DensityCoverage
from diffusion_eqx.evaluation.neighbours import PrecisionRecall as PrecisionRecall
from diffusion_eqx.evaluation.neighbours import density_coverage as density_coverage
from diffusion_eqx.evaluation.neighbours import precision_recall as precision_recall
from diffusion_eqx.evaluation.noisy_accuracy import noisy_accuracy as noisy_accuracy
from diffusion_eqx.evaluation.quality import Quality as Quality
from diffusion_eqx.evaluation.reference import Preprocessing as Preprocessing
from diffusion_eqx.evaluation.reference import Reference as Reference
from diffusion_eqx.evaluation.reference import make_reference as make_reference
from diffusion_eqx.evaluation.reference_file import load_reference as load_reference
from diffusion_eqx.evaluation.reference_file import save_reference as save_reference

__dir__ = _face(globals())
