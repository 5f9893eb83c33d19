"""A small classifier of real images, which judges drawn ones.

It is trained on real images only. Its decisions give the conditional accuracy of a model with classes, its
features a Fréchet distance.
"""

from typing import Protocol, runtime_checkable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from diffusion_eqx._typing import Images, Labels, PRNGKey
from diffusion_eqx.data import ImagesInMemory, to_unit_range
from diffusion_eqx.nn import Conv, Linear
from diffusion_eqx.training import check_labelled, fit_classifier


@runtime_checkable
class ImageClassifier(Protocol):
    """What `judge`, `accuracy` and `ClassifierFeatures` ask of a classifier: any module with these members.

    - `image_shape`: (height, width, channels) of the images it takes.
    """

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(height, width, channels) of the images it takes."""
        ...

    def features(self, images: Images) -> Float[Array, "batch features"]:
        """What it knows of each image before it decides; images in [−1, 1]."""
        ...

    def __call__(self, images: Images) -> Float[Array, "batch classes"]:
        """Logits of the classes; images in [−1, 1]."""
        ...


class Classifier(eqx.Module):
    """Two convolutions of stride 2, a hidden layer of 64 features, and the classes.

    - `image_shape`: (height, width, channels) of the images it takes.
    """

    image_shape: tuple[int, int, int] = eqx.field(static=True)
    convs: list[Conv]
    hidden: Linear
    out: Linear

    def __init__(self, image_shape: tuple[int, int, int], num_classes: int, *, key: PRNGKey):
        """A classifier with fresh weights for images of `image_shape` = (height, width, channels)."""
        height, width, channels = image_shape
        self.image_shape = image_shape
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
    dataset: ImagesInMemory,
    *,
    epochs: int = 8,
    batch_size: int = 200,
    learning_rate: float = 2e-3,
    key: PRNGKey,
) -> Classifier:
    """A classifier trained on labelled images by cross-entropy, Adam and a cosine learning rate.

    - `epochs`: how often each image is seen.
    - `learning_rate`: the peak, from which a cosine falls to 0.
    - `key`: decides initial weights and order.

    **Raises:** `ValueError` if the images have no labels, or do not fill a batch; if `epochs` is less
    than 1.
    """
    num_classes = check_labelled(dataset, batch_size)
    height, width, channels = dataset.shape
    key_init, key_fit = jax.random.split(key)
    classifier = Classifier((height, width, channels), num_classes, key=key_init)
    return fit_classifier(
        classifier,
        dataset,
        lambda classifier, images, key: classifier(images),
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        key=key_fit,
    )


@eqx.filter_jit
def _judge(classifier: ImageClassifier, images: Array):
    # XLA computes once what the two have in common.
    images = to_unit_range(images)
    return classifier.features(images), jnp.argmax(classifier(images), axis=-1)


def judge(
    classifier: ImageClassifier, images: np.ndarray | Images, *, batch_size: int = 500
) -> tuple[np.ndarray, np.ndarray]:
    """Features (N, D) and predicted classes (N,) of images; a `Classifier` has D = 64.

    - `images`: (N, height, width, channels), uint8 or float in [−1, 1].
    - `batch_size`: how many are judged at once; it changes nothing but memory and time.

    **Raises:** `ValueError` if there are no images, or of another shape than the classifier takes.
    """
    images = np.asarray(images)
    if len(images) == 0 or images.shape[1:] != tuple(classifier.image_shape):
        raise ValueError(
            f"this classifier judges images (N, *{tuple(classifier.image_shape)}), at least one; got "
            f"{images.shape}"
        )
    parts = [
        _judge(classifier, jnp.asarray(images[i : i + batch_size]))
        for i in range(0, len(images), batch_size)
    ]
    return (
        np.concatenate([np.asarray(features) for features, _ in parts]),
        np.concatenate([np.asarray(classes) for _, classes in parts]),
    )


def accuracy(
    classifier: ImageClassifier, images: np.ndarray | Images, labels: np.ndarray | Labels
) -> float:
    """The share of images that the classifier assigns to their label.

    - `images`: (N, height, width, channels), uint8 or float in [−1, 1].
    - `labels`: (N,) integers.

    **Raises:** `ValueError` as `judge`, or if there is not one label for each image.
    """
    return share_right(judge(classifier, images)[1], labels)


def share_right(classes: np.ndarray, labels: np.ndarray | Labels) -> float:
    """The share of classes that are equal to their label.

    **Raises:** `ValueError` if there is not one label for each.
    """
    wanted = np.asarray(labels)
    if wanted.shape != classes.shape:
        raise ValueError(
            f"labels must be {len(classes)}, one for each image; got shape {wanted.shape}"
        )
    return float(np.mean(classes == wanted))
