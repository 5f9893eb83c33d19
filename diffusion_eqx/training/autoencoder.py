"""The first stage of a latent diffusion: the autoencoder, its scale, and the latents of a data set.

    autoencoder = train_autoencoder(build_autoencoder(config.autoencoder, key=key), images, training)
    scale = measure_scale_factor(autoencoder, images)
    model = LDMModel(config, autoencoder=autoencoder, scale_factor=scale, key=key)
    latents = encode_dataset(model, images)

The second stage is `fit` of `model.denoiser.backbone` on `latents`, as for any other model.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from diffusion_eqx._typing import Cond, Images, Latents, PRNGKey, Scalar
from diffusion_eqx.config import DiffusionTrainingConfig
from diffusion_eqx.data import ArrayDataset, ImageDataset, to_unit_range
from diffusion_eqx.models import LDMModel
from diffusion_eqx.nn import AbstractAutoencoder
from diffusion_eqx.training.checkpoint import Checkpoints
from diffusion_eqx.training.loop import Cadence, fit
from diffusion_eqx.training.step import averaged, make_recipe

AutoencoderT = TypeVar("AutoencoderT", bound=AbstractAutoencoder)


class AutoencoderLoss(eqx.Module):
    """(‖x − decode(z)‖² + kl_weight·D(z)) / entries of x, with z drawn from the encoder's distribution.

    D is the latents' divergence from N(0, 1) (see `LatentDistribution.divergence`): the negative bound on
    log p(x) of Kingma & Welling (2014, eq. 3), weighted as by Higgins et al. (2017, eq. 4), but for a
    constant and a factor.
    """

    kl_weight: float = eqx.field(static=True)

    def __call__(
        self, autoencoder: AbstractAutoencoder, x0: Images, cond: Cond = None, *, key: PRNGKey
    ) -> Scalar:
        """The mean over a batch of images in [−1, 1]; `cond` is not used."""
        latents = autoencoder.encode_distribution(x0)
        error = (x0 - autoencoder.decode(latents.sample(key=key))) ** 2
        return jnp.mean(error) + self.kl_weight * jnp.mean(latents.divergence()) / x0[0].size


def train_autoencoder(
    autoencoder: AutoencoderT,
    dataset: ImageDataset,
    training: DiffusionTrainingConfig,
    *,
    kl_weight: float,
    cadence: Cadence = Cadence(),
    checkpoints: Checkpoints | None = None,
    resume: bool = False,
    log: Path | None = None,
) -> AutoencoderT:
    """Train an autoencoder on images by `fit`, and give it back with its averaged weights.

    The given one stays as it is. What `training` says of noise levels and labels does not matter here. The
    other arguments, and what is raised, as `fit`.
    """
    recipe = make_recipe(training, AutoencoderLoss(kl_weight))
    state, _ = fit(
        autoencoder,
        dataset,
        recipe,
        training,
        cadence=cadence,
        checkpoints=checkpoints,
        resume=resume,
        log=log,
    )
    return averaged(state)


def measure_scale_factor(
    autoencoder: AbstractAutoencoder, dataset: ImageDataset, *, batch_size: int = 500
) -> float:
    """One over the standard deviation of all latents of a data set (Rombach et al. 2022, appendix G).

    **Raises:** `ValueError` if all latents are equal.
    """
    latents = _encoded(eqx.nn.inference_mode(autoencoder).encode, dataset, batch_size)
    deviation = float(np.std(latents, dtype=np.float64))
    if deviation == 0.0:
        raise ValueError("all latents are equal: the autoencoder encodes nothing")
    return 1.0 / deviation


def encode_dataset(
    model: LDMModel, dataset: ImageDataset, *, batch_size: int = 500
) -> ArrayDataset:
    """The latents that the model denoises of each image, with the images' labels; encoded once."""
    return ArrayDataset(_encoded(model.encode, dataset, batch_size), dataset.labels)


def _encoded(
    encode: Callable[[Images], Latents], dataset: ImageDataset, batch_size: int
) -> Float[np.ndarray, "examples height width channels"]:
    jitted = eqx.filter_jit(lambda encode, images: encode(to_unit_range(images)))
    return np.concatenate(
        [np.asarray(jitted(encode, images)) for images in _parts(dataset.images, batch_size)]
    )


def _parts(images: np.ndarray, batch_size: int) -> Iterator[Array]:
    for begin in range(0, len(images), batch_size):
        yield jax.device_put(images[begin : begin + batch_size])
