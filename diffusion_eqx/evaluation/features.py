"""What an image is compared by: features, a function of your own or those of a classifier."""

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol, runtime_checkable

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from diffusion_eqx._typing import Images
from diffusion_eqx.data import Dataset, ImagesInMemory, to_unit_range
from diffusion_eqx.evaluation.classifier import ImageClassifier
from diffusion_eqx.evaluation.digests import digest_of_arrays
from diffusion_eqx.models import named_arrays


@runtime_checkable
class Features(Protocol):
    """A named function of images, such as `ClassifierFeatures` or `NamedFeatures`.

    - `name`: what it is called in reference files. Functions whose values differ have names that differ,
      so a name says model, weights and layer, such as "inception-v3 pool3 2015-12-05".
    """

    @property
    def name(self) -> str:
        """What it is called in reference files."""
        ...

    def __call__(self, images: Images) -> Any:
        """Images (batch, height, width, channels) in [−1, 1] to features (batch, D).

        The features may be any array that NumPy reads.
        """
        ...


@dataclasses.dataclass(frozen=True)
class NamedFeatures:
    """A function of your own as features, such as a network of another library.

    - `name`: see `Features`.
    - `function`: images (batch, height, width, channels), float in [−1, 1], to features (batch, D), any
      array that NumPy reads. It resizes and normalises as its network needs.
    """

    name: str
    function: Callable[[Images], Any]

    def __call__(self, images: Images) -> Any:
        """The function's value."""
        return self.function(images)


class ClassifierFeatures:
    """What a classifier knows of an image before it decides.

    Its name holds a digest of the weights, so that features of two classifiers are never compared.

    - `classifier`: a `Classifier`, a `CleanClassifier`, or a module with their members.
    """

    classifier: ImageClassifier
    name: str

    def __init__(self, classifier: ImageClassifier):
        self.classifier = classifier
        self.name = f"classifier {digest_of_arrays(named_arrays(classifier))[:16]}"

    def __repr__(self) -> str:
        return f"ClassifierFeatures({self.name!r})"

    def __call__(self, images: Images) -> Float[Array, "batch features"]:
        """The features of images in [−1, 1].

        **Raises:** `ValueError` if they have another shape than the classifier takes.
        """
        wanted = tuple(self.classifier.image_shape)
        if images.shape[1:] != wanted:
            raise ValueError(f"this classifier judges images (N, *{wanted}); got {images.shape}")
        return _features_of(self.classifier, images)


@eqx.filter_jit
def _features_of(classifier: ImageClassifier, images: Images) -> Array:
    return classifier.features(images)


def extract(
    features: Features, images: np.ndarray | Images | Dataset, *, batch_size: int = 250
) -> Float[np.ndarray, "count features"]:
    """Features (N, D) of images, in float32.

    - `features`: see `Features`.
    - `images`: (N, height, width, channels), uint8 or float in [−1, 1]; or a data set. The features of a
      data set that does not hold its images in memory are those of one shuffled epoch.
    - `batch_size`: how many are computed at once; it changes nothing but memory and time.

    **Raises:** `ValueError` if there are no images; if they are no images as above; if the function gives
    something else than one row of finite numbers for each image; if `batch_size` is less than 1.
    """
    return extract_batches(features, image_batches(images, batch_size))


def extract_batches(
    features: Features, batches: Iterable[np.ndarray]
) -> Float[np.ndarray, "count features"]:
    """`extract` of batches, all of one size but the last, which may be smaller."""
    if not isinstance(features, Features) or isinstance(features, type):
        raise ValueError(
            "features are ClassifierFeatures(classifier), NamedFeatures(name, function), or an object of "
            f"yours with a name and a call; got {features!r:.80}"
        )
    parts, size = [], 0
    for images in batches:
        size = size or len(images)
        parts.append(_rows(features, images, size))
    return np.concatenate(parts)


def _rows(features: Features, images: np.ndarray, size: int) -> np.ndarray:
    count = len(images)
    # The last part is filled up with its last image, so that one program serves all parts.
    filled = images[np.minimum(np.arange(size), count - 1)]
    found = np.asarray(features(jnp.asarray(to_unit_range(filled))))
    if found.ndim != 2 or len(found) != size:
        raise ValueError(
            f"{features.name!r} must give features ({size}, D) of {size} images; got {found.shape}"
        )
    found = found[:count].astype(np.float32)
    if not np.isfinite(found).all():
        raise ValueError(f"features of {features.name!r} are not finite; they must be numbers")
    return found


def image_batches(images: np.ndarray | Images | Dataset, batch_size: int) -> Iterator[np.ndarray]:
    """All images, each once, as batches of `batch_size`; the last may be smaller.

    **Raises:** `ValueError` as `extract`.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1; got {batch_size}")
    if isinstance(images, Dataset) and not isinstance(images, ImagesInMemory):
        return _one_epoch(images, min(batch_size, len(images)))
    found = checked_images(images.images if isinstance(images, ImagesInMemory) else images)
    if found.dtype != np.uint8 and float(found.min()) >= 0.0:
        raise ValueError(
            f"images must be uint8, or floats in [-1, 1]; these lie in [{found.min():g}, {found.max():g}]: "
            "scale them by 2 * images - 1"
        )
    size = min(batch_size, len(found))
    return (found[i : i + size] for i in range(0, len(found), size))


def _one_epoch(data: Dataset, size: int) -> Iterator[np.ndarray]:
    stream = data.batches(size, seed=0)
    for number, begin in enumerate(range(0, len(data), size)):
        # The last batch goes on into the next epoch.
        yield checked_images(stream[number]["images"][: len(data) - begin])


def checked_images(images: np.ndarray | Images) -> np.ndarray:
    """Images as an array of NumPy.

    **Raises:** `ValueError` unless they are (N, height, width, channels), uint8, or floats near [−1, 1];
    what models draw may lie a little beyond.
    """
    found = np.asarray(images)
    if found.ndim != 4 or found.size == 0:
        raise ValueError(
            f"images must be (N, height, width, channels), at least one; got {found.shape}"
        )
    if found.dtype == np.uint8:
        return found
    if not jnp.issubdtype(found.dtype, jnp.floating):
        raise ValueError(f"images must be uint8, or floats in [-1, 1]; got {found.dtype}")
    low, high = float(found.min()), float(found.max())
    if not (low >= -2.0 and high <= 2.0):
        raise ValueError(
            f"images must be uint8, or floats in [-1, 1]; these lie in [{low:g}, {high:g}]: scale 0 … 255 "
            "by images / 127.5 - 1"
        )
    return found
