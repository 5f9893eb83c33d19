"""A small classifier of real images: an independent judge of generated ones.

It never sees a generated image while it is trained. Its decisions give the conditional accuracy of a
class-conditional model, its features a Fréchet distance.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from diffusion_eqx._typing import Images, Labels, PRNGKey, Scalar
from diffusion_eqx.data import ImageDataset, to_unit_range
from diffusion_eqx.nn import Conv, Linear


class Classifier(eqx.Module):
    """Two convolutions of stride 2, a hidden layer of 64 features, and the classes."""

    convs: list[Conv]
    hidden: Linear
    out: Linear

    def __init__(self, image_shape: tuple[int, int, int], num_classes: int, *, key: PRNGKey):
        """A classifier with fresh weights for images of `image_shape` = (height, width, channels)."""
        height, width, channels = image_shape
        keys = jax.random.split(key, 4)
        widths = (channels, 32, 64)
        self.convs = [
            Conv(inside, outside, 3, stride=2, key=k)
            for inside, outside, k in zip(widths[:-1], widths[1:], keys[:2], strict=True)
        ]
        pixels = -(-height // 4) * -(-width // 4)
        self.hidden = Linear(pixels * widths[-1], 64, key=keys[2])
        self.out = Linear(64, num_classes, key=keys[3])

    def features(self, images: Images) -> Float[Array, "batch 64"]:
        """The 64 features before the last layer; images in [−1, 1]."""
        h = images
        for conv in self.convs:
            h = jax.nn.relu(conv(h))
        return jax.nn.relu(self.hidden(h.reshape(len(h), -1)))

    def __call__(self, images: Images) -> Float[Array, "batch classes"]:
        """Logits of the classes; images in [−1, 1]."""
        return self.out(self.features(images))


def train_classifier(
    dataset: ImageDataset,
    *,
    epochs: int = 8,
    batch_size: int = 200,
    learning_rate: float = 2e-3,
    key: PRNGKey,
) -> Classifier:
    """Train a classifier on labelled images by cross-entropy, Adam and a cosine learning rate.

    **Raises:** `ValueError` if the images have no labels.
    """
    if dataset.labels is None or dataset.num_classes is None:
        raise ValueError("a classifier needs labels, and this data set has none")
    key_init, key_order = jax.random.split(key)
    classifier = Classifier(dataset.images.shape[1:], dataset.num_classes, key=key_init)
    batches = len(dataset) // batch_size
    optimizer = optax.adam(optax.cosine_decay_schedule(learning_rate, epochs * batches))
    images, labels = jnp.asarray(dataset.images), jnp.asarray(dataset.labels)

    # One jitted call a step: inside a scan, XLA's CPU compiler runs weight gradients many times slower.
    @eqx.filter_jit(donate="all")
    def step(classifier: Classifier, opt_state: optax.OptState, x: Array, y: Array):
        def loss(classifier: Classifier) -> Scalar:
            logits = classifier(to_unit_range(x))
            return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, y))

        grads = eqx.filter_grad(loss)(classifier)
        updates, opt_state = optimizer.update(grads, opt_state)
        return eqx.apply_updates(classifier, updates), opt_state

    opt_state = optimizer.init(eqx.filter(classifier, eqx.is_array))
    for epoch in range(epochs):
        order = jax.random.permutation(jax.random.fold_in(key_order, epoch), len(dataset))
        for picked in order[: batches * batch_size].reshape(batches, batch_size):
            classifier, opt_state = step(classifier, opt_state, images[picked], labels[picked])
    return classifier


@eqx.filter_jit
def _judge(classifier: Classifier, images: Array):
    features = classifier.features(to_unit_range(images))
    return features, jnp.argmax(classifier.out(features), axis=-1)


def judge(
    classifier: Classifier, images: np.ndarray, *, batch_size: int = 500
) -> tuple[np.ndarray, np.ndarray]:
    """Features (N, 64) and predicted classes (N,) of images, uint8 or float in [−1, 1]."""
    parts = [
        _judge(classifier, jnp.asarray(images[i : i + batch_size]))
        for i in range(0, len(images), batch_size)
    ]
    return (
        np.concatenate([np.asarray(features) for features, _ in parts]),
        np.concatenate([np.asarray(classes) for _, classes in parts]),
    )


def accuracy(classifier: Classifier, images: np.ndarray, labels: Labels | np.ndarray) -> float:
    """The share of images that the classifier assigns to their label."""
    return float(np.mean(judge(classifier, images)[1] == np.asarray(labels)))
