"""Pictures of what a model draws while it is trained."""

from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp

from diffusion_eqx.data import image_grid, save_picture
from diffusion_eqx.denoiser import Backbone
from diffusion_eqx.models import AbstractDiffusionModel


class Preview:
    """Draws a grid, one row, of every class (or of ten images) and overwrites one picture file.

    The same noise each time, so that successive pictures show the same images getting better.
    """

    def __init__(self, model: AbstractDiffusionModel, path: Path, *, steps: int = 20):
        self._model = model
        self._path = path
        self._steps = steps

    def __call__(self, backbone: Backbone, step: int) -> None:
        """Write the picture for the weights after `step` steps."""
        model = eqx.tree_at(lambda m: m.denoiser.backbone, self._model, backbone)
        # One device suffices for a preview, whatever the training runs on.
        arrays, rest = eqx.partition(model, eqx.is_array)
        model = eqx.combine(jax.device_put(arrays, jax.devices()[0]), rest)
        classes = model.num_classes
        images = model.sample(
            classes or 10,
            "ddim",
            self._steps,
            key=jax.random.key(0),
            labels=None if classes is None else jnp.arange(classes),
        )
        save_picture(self._path, image_grid(images, columns=len(images)), zoom=4)
