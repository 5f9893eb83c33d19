"""A classifier of noisy images as a judge of clean ones."""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from diffusion_eqx._typing import Images
from diffusion_eqx.models import NoisyClassifier
from diffusion_eqx.schedules import NoiseLevel


class CleanClassifier(eqx.Module):
    """A `NoisyClassifier` at the least noise that it has learnt, that of timestep 0.

    It is the `ImageClassifier` that a file of `diffusion-eqx train-classifier` gives. It is no judge of
    images which it has guided itself: these were drawn to please it.
    """

    classifier: NoisyClassifier

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(height, width, channels) of the images it takes."""
        height, width, channels = self.classifier.config.input_shape
        return height, width, channels

    def features(self, images: Images) -> Float[Array, "batch features"]:
        """The mean of the last hidden layer over all places; images in [−1, 1]."""
        return self.classifier.features(*self._least_noisy(images))

    def __call__(self, images: Images) -> Float[Array, "batch classes"]:
        """Logits of the classes; images in [−1, 1]."""
        return self.classifier(*self._least_noisy(images))

    def _least_noisy(self, images: Images) -> tuple[Images, NoiseLevel]:
        schedule = self.classifier.schedule
        level = schedule.at(1.0 / schedule.num_timesteps)
        return level.noised(images, jnp.zeros_like(images)), level
