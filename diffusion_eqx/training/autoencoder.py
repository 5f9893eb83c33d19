"""The first stage of a latent diffusion: the autoencoder, its scale, and the latents of a data set.

    autoencoder = build_autoencoder(config.autoencoder, key=key_autoencoder)
    autoencoder = train_autoencoder(autoencoder, images, training, kl_weight=config.kl_weight)
    scale = measure_scale_factor(autoencoder, images)
    model = LDMModel(config, autoencoder=autoencoder, scale_factor=scale, key=key_model)

The second stage is `train` of this model on the same images, as for any other model.
"""

import os
from collections.abc import Iterable
from typing import TypeVar

import equinox as eqx
import numpy as np
from jaxtyping import Array, Float

from diffusion_eqx._typing import Cond, Images
from diffusion_eqx.config import TrainingConfig
from diffusion_eqx.data import ArrayDataset, Dataset, ImagesInMemory
from diffusion_eqx.losses import AbstractLoss, Draws
from diffusion_eqx.models import LDMModel
from diffusion_eqx.nn import AbstractAutoencoder
from diffusion_eqx.random_keys import NOISE
from diffusion_eqx.training.callback import Callback
from diffusion_eqx.training.loop import fit
from diffusion_eqx.training.moments import encode_moments
from diffusion_eqx.training.recipe import make_recipe
from diffusion_eqx.training.run import Run
from diffusion_eqx.training.state import averaged

AutoencoderT = TypeVar("AutoencoderT", bound=AbstractAutoencoder)


class AutoencoderLoss(AbstractLoss):
    """(‖x − decode(z)‖² + kl_weight·D(z)) / entries of x, with z drawn from the encoder's distribution.

    D is the latents' divergence from N(0, 1) (see `LatentDistribution.divergence`): the negative bound on
    log p(x) of Kingma & Welling (2014, eq. 3), weighted as by Higgins et al. (2017, eq. 4), but for a
    constant and a factor.
    """

    kl_weight: float = eqx.field(static=True)

    def each(
        self, network: AbstractAutoencoder, x0: Images, cond: Cond, draws: Draws
    ) -> Float[Array, " batch"]:
        """The loss of each of a batch of images in [−1, 1]; `cond` is not used."""
        latents = network.encode_distribution(x0)
        error = (x0 - network.decode(latents.sample(key=draws.keys(NOISE)))) ** 2
        return error.mean(axis=(1, 2, 3)) + self.kl_weight * latents.divergence() / x0[0].size


def train_autoencoder(
    autoencoder: AutoencoderT,
    data: Dataset,
    config: TrainingConfig,
    *,
    kl_weight: float,
    run: Run | None = None,
    callbacks: Iterable[Callback] = (),
) -> AutoencoderT:
    """Train an autoencoder on images, and give it back with its averaged weights.

    - `autoencoder`: the one to start from. It stays as it is.
    - `data`: images; their labels are not used.
    - `config`: as for models; what it says of loss weighting and labels does not matter.
    - `kl_weight`: of the loss, see `AutoencoderLoss`.
    - `run`, `callbacks`: as of `fit`.

    **Raises:** as `fit`.
    """
    recipe = make_recipe(config, AutoencoderLoss(kl_weight))
    state, _ = fit(autoencoder, data, recipe, config, run=run, callbacks=callbacks)
    return averaged(state)


def measure_scale_factor(
    autoencoder: AbstractAutoencoder,
    data: ImagesInMemory,
    *,
    batch_size: int = 500,
    cache: str | os.PathLike[str] | None = None,
) -> float:
    """One over the standard deviation of all latents of a data set (Rombach et al. 2022, appendix G).

    - `cache`: where the latents are kept on disk, see `encode_moments`.

    **Raises:** `ValueError` if all latents are equal.
    """
    latents = encode_moments(autoencoder, data, batch_size=batch_size, cache=cache).mean
    deviation = float(np.std(latents, dtype=np.float64))
    if deviation == 0.0:
        raise ValueError("all latents are equal: the autoencoder encodes nothing")
    return 1.0 / deviation


def encode_dataset(
    model: LDMModel,
    data: ImagesInMemory,
    *,
    batch_size: int = 500,
    cache: str | os.PathLike[str] | None = None,
) -> ArrayDataset:
    """The latents that the model denoises of each image, with the images' labels; encoded once.

    They are the means of the encoder's distributions, times the model's scale factor.

    - `cache`: where the moments are kept on disk, see `encode_moments`.
    """
    mean = encode_moments(model.autoencoder, data, batch_size=batch_size, cache=cache).mean
    scale = np.asarray(model.scale_factor).astype(mean.dtype)
    return ArrayDataset(scale * mean, data.labels, data.class_names)
