"""How well a classifier of noisy images knows classes at a level of noise."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from diffusion_eqx._typing import Images, Labels, PRNGKey
from diffusion_eqx.data import to_unit_range
from diffusion_eqx.denoiser import Level, as_level
from diffusion_eqx.evaluation.classifier import share_right
from diffusion_eqx.models import NoisyClassifier
from diffusion_eqx.schedules import NoiseLevel


def noisy_accuracy(
    classifier: NoisyClassifier,
    images: Images | np.ndarray,
    labels: Labels | np.ndarray,
    level: Level,
    *,
    key: PRNGKey,
) -> float:
    """The share of images, noised to a level, that the classifier assigns to their label.

    - `images`: (N, height, width, channels), clean, uint8 or float in [−1, 1].
    - `labels`: (N,) integers.
    - `level`: a `NoiseLevel` of the classifier's schedule, or a time in [0, 1].
    - `key`: draws the noise.

    **Raises:** `ValueError` if there is not one label for each image.
    """
    x0 = to_unit_range(jnp.asarray(images))
    level = as_level(classifier.schedule, level)
    x = level.noised(x0, jax.random.normal(key, x0.shape, x0.dtype))
    return share_right(np.asarray(_logits(classifier, x, level)).argmax(-1), labels)


@eqx.filter_jit
def _logits(classifier: NoisyClassifier, x: Images, level: NoiseLevel) -> Array:
    return classifier(x, level)
