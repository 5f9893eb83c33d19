"""Bits per dimension of a whole model."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from diffusion_eqx._typing import Images, Labels, PRNGKey
from diffusion_eqx.evaluation.likelihood import Likelihood, image_bits_per_dim
from diffusion_eqx.models import AbstractDiffusionModel, condition


def bits_per_dim(
    model: AbstractDiffusionModel,
    images: Images | np.ndarray,
    *,
    key: PRNGKey,
    labels: int | Labels | np.ndarray | None = None,
    batch_size: int = 64,
    **options: Any,
) -> Likelihood:
    """Bits per dimension that a model needs for images: the fewer, the better it knows them.

    - `images`: (N, height, width, channels) of the model's shape, uint8 or float in [−1, 1].
    - `key`: draws noise and probes. Those of image k depend on `key` and k only.
    - `labels`: one class for all images or (N,), for a model with classes. Without labels such a model is
      asked under its null condition.
    - `batch_size`: how many images are computed at once; it changes nothing but memory and time.
    - `options`: those of `image_bits_per_dim` and `log_likelihood`, such as `probes` and `steps`.

    The result has `bits_per_dim` and `probe_error` of each image, `mean` and `standard_error` of all.

    **Raises:** `ValueError` if the model is a latent one, whose images have no density; if images or
    labels do not fit the model; and as `image_bits_per_dim`.
    """
    config, images = model.config, np.asarray(images)
    if tuple(config.sample_shape) != tuple(config.input_shape):
        raise ValueError(
            "a latent model has no likelihood of images, since it denoises latents; for that of latents "
            "call log_likelihood(model.denoiser, model.encode(images), key=key)"
        )
    if len(images) == 0 or tuple(images.shape[1:]) != tuple(config.input_shape):
        raise ValueError(
            f"this model needs images (N, *{tuple(config.input_shape)}), at least one; got {images.shape}"
        )
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1; got {batch_size}")
    cond = condition(model.denoiser, model.num_classes, len(images), labels, None)
    size = min(batch_size, len(images))
    parts = []
    for first in range(0, len(images), size):
        # The last part is filled up with its last image, so that one program serves all parts.
        rows = np.minimum(np.arange(first, first + size), len(images) - 1)
        part = jax.tree.map(lambda a, rows=rows: a[rows], cond)
        parts.append(
            image_bits_per_dim(model.denoiser, images[rows], part, key=key, first=first, **options)
        )
    return jax.tree.map(lambda *arrays: jnp.concatenate(arrays)[: len(images)], *parts)
