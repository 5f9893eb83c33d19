"""A classifier of noisy images, p(y | x_t) at every noise level, whose gradient guides a diffusion model.

Dhariwal & Nichol (2021, section 4). Unlike the judge of `evaluation.classifier` it is part of sampling, and
so no judge of what it has guided.
"""

import json
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from diffusion_eqx._typing import Images, Labels, PRNGKey
from diffusion_eqx.config import NoisyClassifierConfig, from_json, to_json
from diffusion_eqx.data import ImageDataset, to_unit_range
from diffusion_eqx.evaluation.fitting import check_labelled, fit_classifier
from diffusion_eqx.losses import stratified_timesteps
from diffusion_eqx.models.array_file import fill, named_arrays, read_arrays, write_arrays
from diffusion_eqx.models.build import build_schedule
from diffusion_eqx.nn import Conv, GroupNorm, Linear, ResBlock, TimeEmbedding, largest_group_count
from diffusion_eqx.schedules import AbstractSchedule, like

FORMAT = "diffusion_eqx.classifier"
FORMAT_VERSION = "1"
_MOST_GROUPS = 8


class NoisyClassifier(eqx.Module):
    """`(x_t, t) -> logits`: residual blocks told of the noise level, each followed by a halving.

    `ClassifierGuidance` takes it as it is. `config` is kept so that it can be saved and built again.
    """

    config: NoisyClassifierConfig = eqx.field(static=True)
    schedule: AbstractSchedule
    time_embedding: TimeEmbedding
    conv_in: Conv
    blocks: list[ResBlock]
    halvings: list[Conv]
    norm: GroupNorm
    out: Linear

    def __init__(self, config: NoisyClassifierConfig, *, key: PRNGKey):
        """A classifier with fresh weights."""
        keys = iter(jax.random.split(key, 3 + 2 * len(config.hidden_dims)))
        height, width, channels = config.input_shape
        current = config.hidden_dims[0]
        self.config = config
        self.schedule = build_schedule(config.noise_schedule)
        self.time_embedding = TimeEmbedding(config.time_embedding_dim, key=next(keys))
        self.conv_in = Conv(channels, current, 3, key=next(keys))
        self.blocks, self.halvings = [], []
        for wider in config.hidden_dims:
            block = ResBlock(
                current,
                wider,
                config.time_embedding_dim,
                activation=jax.nn.silu,
                dropout=config.dropout,
                norm_groups=_MOST_GROUPS,
                key=next(keys),
            )
            self.blocks.append(block)
            self.halvings.append(Conv(wider, wider, 3, stride=2, key=next(keys)))
            height, width, current = -(-height // 2), -(-width // 2), wider
        self.norm = GroupNorm(current, largest_group_count(current, _MOST_GROUPS), silu=True)
        # Zero: a fresh classifier knows nothing and has no gradient.
        self.out = Linear(height * width * current, config.num_classes, key=next(keys), zero=True)

    def __call__(
        self, x_t: Images, t: Float[Array, " batch"], *, key: PRNGKey | None = None
    ) -> Float[Array, "batch classes"]:
        """Logits of the classes of noisy images (batch, height, width, channels) at times t.

        `key` is for dropout, while training.
        """
        alpha, sigma = self.schedule.alpha(t), self.schedule.sigma(t)
        embedding = jax.nn.silu(self.time_embedding(self.schedule.timestep(t)))
        h = self.conv_in(x_t / like(jnp.sqrt(alpha**2 + sigma**2), x_t))
        for number, (block, halve) in enumerate(zip(self.blocks, self.halvings, strict=True)):
            block_key = None if key is None else jax.random.fold_in(key, number)
            h = halve(block(h, embedding, key=block_key))
        return self.out(self.norm(h).reshape(len(h), -1))


def train_noisy_classifier(
    dataset: ImageDataset,
    config: NoisyClassifierConfig,
    *,
    epochs: int = 40,
    batch_size: int = 100,
    learning_rate: float = 2e-3,
    key: PRNGKey,
) -> NoisyClassifier:
    """Train on labelled images noised to all timesteps alike, by cross-entropy; returns it for inference.

    **Raises:** `ValueError` if the images have no labels, or others than the configuration says, or do not
    fill a batch.
    """
    _, classes = check_labelled(dataset, batch_size)
    shape = tuple(dataset.images.shape[1:])
    if (shape, classes) != (config.input_shape, config.num_classes):
        raise ValueError(
            f"the classifier is for {config.num_classes} classes of images of shape "
            f"{config.input_shape}; the data has {classes} classes of shape {shape}"
        )

    def noisy_logits(classifier: NoisyClassifier, images: Images, key: PRNGKey) -> Array:
        key_time, key_noise, key_dropout = jax.random.split(key, 3)
        schedule = classifier.schedule
        t = schedule.time(stratified_timesteps(key_time, len(images), schedule.num_timesteps))
        x_t = schedule.perturb(images, t, jax.random.normal(key_noise, images.shape))
        return classifier(x_t, t, key=key_dropout)

    key_init, key_fit = jax.random.split(key)
    trained = fit_classifier(
        NoisyClassifier(config, key=key_init),
        dataset,
        noisy_logits,
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        key=key_fit,
    )
    return eqx.nn.inference_mode(trained)


def noisy_accuracy(
    classifier: NoisyClassifier,
    images: np.ndarray,
    labels: Labels | np.ndarray,
    t: float,
    *,
    key: PRNGKey,
) -> float:
    """The share of images, noised to time t, that the classifier assigns to their label.

    `images`: (N, height, width, channels), uint8 or float in [−1, 1].
    """
    x0 = to_unit_range(jnp.asarray(images))
    times = jnp.full(len(x0), t)
    x_t = classifier.schedule.perturb(x0, times, jax.random.normal(key, x0.shape))
    return float(np.mean(np.argmax(_logits(classifier, x_t, times), -1) == np.asarray(labels)))


@eqx.filter_jit
def _logits(classifier: NoisyClassifier, x_t: Images, t: Array) -> Array:
    return classifier(x_t, t)


class SavedClassifier(NamedTuple):
    """A classifier read from a file, and what its file records of its training."""

    classifier: NoisyClassifier
    training: dict[str, Any]


def save_classifier(
    path: str | Path, classifier: NoisyClassifier, *, training: dict[str, Any] | None = None
) -> None:
    """Write a classifier with its configuration as one safetensors file, atomically.

    `training`: anything JSON can say of the run.
    """
    metadata = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "config": to_json(classifier.config),
        "training": json.dumps(training or {}),
    }
    write_arrays(path, named_arrays(classifier), metadata)


def load_classifier(path: str | Path) -> SavedClassifier:
    """Read a classifier written by `save_classifier`, for inference.

    **Raises:** `FileNotFoundError`; `ModelFileError` if the file is something else, of an unknown version,
    damaged, or lacks arrays that its configuration asks for.
    """
    metadata, arrays = read_arrays(path, FORMAT, FORMAT_VERSION)
    config = from_json(NoisyClassifierConfig, metadata["config"])
    # Only shapes are built here; no random weights are drawn to be thrown away.
    empty = eqx.filter_eval_shape(NoisyClassifier, config, key=jax.random.key(0))
    classifier = eqx.nn.inference_mode(fill(empty, arrays, path))
    return SavedClassifier(classifier, json.loads(metadata["training"]))
