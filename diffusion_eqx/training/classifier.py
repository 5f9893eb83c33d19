"""Training of classifiers: cross-entropy, Adam and a cosine learning rate; nothing is printed."""

from collections.abc import Callable
from typing import TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from diffusion_eqx._typing import Images, PRNGKey, Scalar
from diffusion_eqx.config import NoisyClassifierConfig
from diffusion_eqx.data import ImagesInMemory, to_unit_range
from diffusion_eqx.losses import Draws, UniformTimes
from diffusion_eqx.models import NoisyClassifier

ClassifierT = TypeVar("ClassifierT", bound=eqx.Module)


def train_noisy_classifier(
    dataset: ImagesInMemory,
    config: NoisyClassifierConfig,
    *,
    epochs: int = 40,
    batch_size: int = 100,
    learning_rate: float = 2e-3,
    key: PRNGKey,
) -> NoisyClassifier:
    """A classifier trained on labelled images noised to all timesteps alike, ready for inference.

    - `dataset`: images with labels, of the shape and the number of classes of `config`.
    - `epochs`: how often each image is seen.
    - `learning_rate`: the peak, from which a cosine falls to 0.
    - `key`: decides initial weights, order and noise.

    **Raises:** `ValueError` if the data have no labels, or another shape or number of classes than the
    configuration says; if they do not fill a batch; if `epochs` is less than 1.
    """
    classes = check_labelled(dataset, batch_size)
    shape = tuple(dataset.shape)
    if (shape, classes) != (tuple(config.input_shape), config.num_classes):
        raise ValueError(
            f"the classifier is for {config.num_classes} classes of images of shape "
            f"{config.input_shape}; the data have {classes} classes of shape {shape}: change the "
            "configuration, or the data"
        )

    def noisy_logits(classifier: NoisyClassifier, images: Images, key: PRNGKey) -> Array:
        key_time, key_noise, key_dropout = jax.random.split(key, 3)
        level = UniformTimes()(classifier.schedule, Draws.of(key_time, len(images)).uniforms())
        noise = jax.random.normal(key_noise, images.shape, images.dtype)
        return classifier(level.noised(images, noise), level, key=key_dropout)

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


def check_labelled(dataset: ImagesInMemory, batch_size: int) -> int:
    """The number of classes of a data set that a classifier can be trained on.

    **Raises:** `ValueError` if it has no labels, or fewer images than a batch takes.
    """
    if dataset.labels is None or dataset.num_classes is None:
        raise ValueError("a classifier needs labels, and this data set has none")
    if not 1 <= batch_size <= len(dataset):
        raise ValueError(
            f"batch_size must be between 1 and the {len(dataset)} images; got {batch_size}"
        )
    return dataset.num_classes


def fit_classifier(
    classifier: ClassifierT,
    dataset: ImagesInMemory,
    logits: Callable[[ClassifierT, Images, PRNGKey], Float[Array, "batch classes"]],
    *,
    epochs: int,
    batch_size: int,
    learning_rate: float,
    key: PRNGKey,
) -> ClassifierT:
    """Train a classifier; each epoch has an order of its own, and leaves out what does not fill a batch.

    - `logits`: `(classifier, images, key) -> logits` of clean images (batch, height, width, channels) in
      [−1, 1].
    - `epochs`, `learning_rate`: as of `train_noisy_classifier`.

    **Raises:** `ValueError` as `check_labelled`, or if `epochs` is less than 1.
    """
    check_labelled(dataset, batch_size)
    if epochs < 1:
        raise ValueError(f"epochs must be at least 1; got {epochs}")
    images, labels = jnp.asarray(dataset.images), jnp.asarray(dataset.labels)
    batches = len(dataset) // batch_size
    optimizer = optax.adam(optax.cosine_decay_schedule(learning_rate, epochs * batches))

    # One jitted call a step: inside a scan, XLA's CPU compiler runs weight gradients many times slower.
    @eqx.filter_jit(donate="all-except-first")
    def step(batch: tuple[Array, Array, PRNGKey], classifier: ClassifierT, opt_state):
        x, y, key = batch

        def loss(classifier: ClassifierT) -> Scalar:
            found = logits(classifier, to_unit_range(x), key)
            return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(found, y))

        grads = eqx.filter_grad(loss)(classifier)
        # The optimiser's own arithmetic mixes types, which the strict mode of promotion would refuse.
        with jax.numpy_dtype_promotion("standard"):
            updates, opt_state = optimizer.update(grads, opt_state)
        return eqx.apply_updates(classifier, updates), opt_state

    # Numbers below `epochs` are those of the orders.
    key_steps = jax.random.fold_in(key, epochs)
    opt_state = optimizer.init(eqx.filter(classifier, eqx.is_inexact_array))
    for epoch in range(epochs):
        order = jax.random.permutation(jax.random.fold_in(key, epoch), len(dataset))
        rows = order[: batches * batch_size].reshape(batches, batch_size)
        for number, picked in enumerate(rows, start=epoch * batches):
            batch = images[picked], labels[picked], jax.random.fold_in(key_steps, number)
            classifier, opt_state = step(batch, classifier, opt_state)
    return classifier
