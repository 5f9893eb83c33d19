"""Statistics of real images that drawn ones are compared with, and what they were made of and how."""

import dataclasses
import importlib.metadata

import numpy as np
from jaxtyping import Float

from diffusion_eqx._typing import Images
from diffusion_eqx.data import Dataset, ImageFolder, to_bytes
from diffusion_eqx.evaluation.digests import PixelDigest
from diffusion_eqx.evaluation.features import Features, extract_batches, image_batches
from diffusion_eqx.evaluation.frechet import moments

BYTES = "8 bits"
_NO_RESIZE = "none: as the data set gives them"
_FOLDER_RESIZE = "Pillow's anti-aliased bicubic to cover, middle cut out, sRGB, 8 bits"


@dataclasses.dataclass(frozen=True)
class Preprocessing:
    """How real images came to what the feature function saw. Figures of other ways do not compare.

    - `image_shape`: (height, width, channels).
    - `resize`: by which filter they were brought to this size, in words.
    - `rounding`: "8 bits" for images of uint8, and those that are compared are rounded so too; or "none".
    - `value_range`: the least and the largest value that a pixel has for the feature function.
    """

    image_shape: tuple[int, int, int]
    resize: str
    rounding: str
    value_range: tuple[float, float] = (-1.0, 1.0)

    def apply(self, images: np.ndarray) -> np.ndarray:
        """Images of any source as the real ones were: clipped, and rounded if those were.

        **Raises:** `ValueError` if they have another shape, or hold numbers that are not finite.
        """
        if images.shape[1:] != self.image_shape:
            raise ValueError(
                f"the reference is of images of shape {self.image_shape}; got {images.shape[1:]}: draw or "
                "read images of that shape, or make a reference of real images of the other"
            )
        if images.dtype == np.uint8:
            return images
        return to_bytes(images) if self.rounding == BYTES else np.clip(images, *self.value_range)


@dataclasses.dataclass(frozen=True, eq=False)
class Reference:
    """Features of real images and their statistics, made by `make_reference`; `save_reference` writes it.

    - `features`: (N, D), float32; measures by neighbours and kernels need them all.
    - `mean`, `covariance`: (D,) and (D, D), float64, for the Fréchet distance.
    - `feature_name`: the name of the feature function.
    - `preprocessing`: how the images came to what that function saw.
    - `data_digest`: SHA-256 of the images' pixels.
    - `version`: the release of this library that made it.
    """

    features: Float[np.ndarray, "count features"]
    mean: Float[np.ndarray, " features"]
    covariance: Float[np.ndarray, "features features"]
    feature_name: str
    preprocessing: Preprocessing
    data_digest: str
    version: str

    @property
    def count(self) -> int:
        """The number of real images."""
        return len(self.features)

    @property
    def width(self) -> int:
        """The number of features of an image."""
        return self.features.shape[1]

    def check(self, features: Features, width: int | None = None) -> None:
        """Refuse features of another function than that of the reference.

        - `width`: how many features of an image the function gave, once that is known.

        **Raises:** `ValueError`.
        """
        if features.name != self.feature_name:
            raise ValueError(
                f"the reference holds features of {self.feature_name!r}; the images' are of "
                f"{features.name!r}: take that function, or make a reference by make_reference(features, "
                "data)"
            )
        if width not in (None, self.width):
            raise ValueError(
                f"the reference holds {self.width} features of each image; {features.name!r} now gives "
                f"{width}: functions that differ need names that differ, and a reference each"
            )

    def check_data(self, images: np.ndarray | Images | Dataset) -> None:
        """Refuse real images other than those that the reference was made of.

        **Raises:** `ValueError`.
        """
        digest = PixelDigest()
        for _ in digest.passing(image_batches(images, _AT_ONCE)):
            pass
        if digest.text != self.data_digest:
            raise ValueError(
                f"the reference was made of other images: their digest is {self.data_digest[:16]}…, that "
                f"of the data given is {digest.text[:16]}…; give the same data at the same size, or make a "
                "new reference"
            )


_AT_ONCE = 250


def make_reference(
    features: Features,
    data: np.ndarray | Images | Dataset,
    *,
    resize: str | None = None,
    batch_size: int = _AT_ONCE,
) -> Reference:
    """The statistics of real images that `evaluate` compares with.

    - `features`: see `Features`.
    - `data`: (N, height, width, channels), uint8 or float in [−1, 1]; or a data set.
    - `resize`: how the images were brought to their size, in words, for the record. By default that is what
      `ImageFolder` does for an `ImageFolder`, and "none" for others.
    - `batch_size`: how many are computed at once; it changes nothing but memory and time.

    **Raises:** `ValueError` as `extract`, or if there are fewer than two images.
    """
    if resize is None:
        resize = _FOLDER_RESIZE if isinstance(data, ImageFolder) else _NO_RESIZE
    digest, shapes = PixelDigest(), set()

    def noted():
        for images in digest.passing(image_batches(data, batch_size)):
            shapes.add((images.shape[1:], images.dtype == np.uint8))
            yield images

    found = extract_batches(features, noted())
    if len(found) < 2:
        raise ValueError(f"a reference needs at least two images; got {len(found)}")
    ((image_shape, in_bytes),) = shapes
    mean, covariance = moments(found)
    return Reference(
        features=found,
        mean=mean,
        covariance=covariance,
        feature_name=features.name,
        preprocessing=Preprocessing(image_shape, resize, BYTES if in_bytes else "none"),
        data_digest=digest.text,
        version=importlib.metadata.version("diffusion-eqx"),
    )
