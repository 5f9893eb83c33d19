"""What a model is trained on: images, or the latents of images."""

import warnings
from pathlib import Path

import numpy as np

from diffusion_eqx.data import Dataset, ImagesInMemory
from diffusion_eqx.models import AbstractDiffusionModel, LDMModel
from diffusion_eqx.training.autoencoder import encode_dataset
from diffusion_eqx.training.folder import LATENTS

# Latents whose standard deviation lies outside are noised too early or too late.
_UNIT_SIZE = (0.5, 2.0)


def what_is_denoised(
    model: AbstractDiffusionModel, data: Dataset, folder: Path | None = None
) -> Dataset:
    """The examples that a model denoises: the data, or for a latent model their latents, encoded once.

    - `data`: fits the model, see `check_data`.
    - `folder`: of the run, where the moments of latents are kept.

    **Warns:** `UserWarning` if latents are not of about unit size.
    """
    if not isinstance(model, LDMModel):
        return data
    assert isinstance(data, ImagesInMemory)  # check_data saw to it.
    latents = encode_dataset(model, data, cache=None if folder is None else folder / LATENTS)
    deviation = float(np.std(latents.examples, dtype=np.float64))
    if not _UNIT_SIZE[0] < deviation < _UNIT_SIZE[1]:
        warnings.warn(
            f"the latents have a standard deviation of {deviation:.3g}, where the noise schedule expects "
            "about 1; make the model with scale_factor=measure_scale_factor(autoencoder, images)",
            stacklevel=3,
        )
    return latents
