"""Training of classifiers: cross-entropy, Adam and a cosine learning rate, without a word on the screen."""

from collections.abc import Callable
from typing import TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from diffusion_eqx._typing import Images, PRNGKey, Scalar
from diffusion_eqx.data import ImageDataset, to_unit_range

ClassifierT = TypeVar("ClassifierT", bound=eqx.Module)


def check_labelled(dataset: ImageDataset, batch_size: int) -> tuple[Array, int]:
    """The labels of a data set and the number of its classes.

    **Raises:** `ValueError` if there are none, or less images than a batch takes.
    """
    if dataset.labels is None or dataset.num_classes is None:
        raise ValueError("a classifier needs labels, and this data set has none")
    if not 1 <= batch_size <= len(dataset):
        raise ValueError(
            f"batch_size must be between 1 and the {len(dataset)} images; got {batch_size}"
        )
    return jnp.asarray(dataset.labels), dataset.num_classes


def fit_classifier(
    classifier: ClassifierT,
    dataset: ImageDataset,
    logits: Callable[[ClassifierT, Images, PRNGKey], Float[Array, "batch classes"]],
    *,
    epochs: int,
    batch_size: int,
    learning_rate: float,
    key: PRNGKey,
) -> ClassifierT:
    """Train for so many epochs; `logits(classifier, images, key)` says what it makes of clean images.

    Each epoch has an order of its own, and leaves out what does not fill a batch.

    **Raises:** `ValueError` as `check_labelled`.
    """
    labels, _ = check_labelled(dataset, batch_size)
    images = jnp.asarray(dataset.images)
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
