"""Pictures of what a model draws while it is trained."""

from pathlib import Path

import jax.numpy as jnp

from diffusion_eqx.data import image_grid, save_picture
from diffusion_eqx.training.callback import Callback
from diffusion_eqx.training.devices import writes
from diffusion_eqx.training.run import Run

_IMAGES_WITHOUT_CLASSES = 10


class Preview(Callback):
    """Draws one row of images, one of each class (or ten), every `preview_every` steps and last.

    The noise is the same each time, so successive pictures show the same images getting better. The picture
    is written over the one before.

    - `path`: the picture.
    - `sampler`, `steps`: how the images are drawn; no more steps than the model has timesteps.
    - `zoom`: how many times larger a pixel is drawn.
    """

    optional = True

    def __init__(self, path: str | Path, *, sampler: str = "ddim", steps: int = 20, zoom: int = 4):
        self._path = Path(path)
        self._sampler = sampler
        self._steps = steps
        self._zoom = zoom

    def step(self, run: Run) -> None:
        """Draw the picture if it is due."""
        if run.due(run.config.preview_every):
            self.draw(run)

    def draw(self, run: Run) -> None:
        """Draw the picture."""
        model = run.model()
        classes = model.num_classes
        count = classes or _IMAGES_WITHOUT_CLASSES
        images = model.sample(
            count,
            self._sampler,
            steps=min(self._steps, model.config.noise_schedule.num_timesteps),
            labels=None if classes is None else jnp.arange(classes),
            key=run.key("preview"),
        )
        if writes():
            save_picture(self._path, image_grid(images, columns=count), zoom=self._zoom)
