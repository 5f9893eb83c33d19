"""What the first examples of a source say of all: their shape, and whether they are images."""

from collections.abc import Sequence

import numpy as np

from diffusion_eqx.data.record import Example

# So many examples are looked at before training.
PROBED = 16


def probe(
    examples: Sequence[Example], places: Sequence[str]
) -> tuple[tuple[int, int, int], np.dtype]:
    """The one shape and type of images that all examples have.

    **Raises:** `ValueError` if they differ, or if they are floats that nobody has scaled to [−1, 1].
    """
    first = examples[0].image
    for example, place in zip(examples, places, strict=True):
        check_alike(example.image, first.shape, first.dtype, place)
    if first.dtype != np.uint8 and min(float(one.image.min()) for one in examples) >= 0.0:
        high = max(float(one.image.max()) for one in examples)
        raise ValueError(
            f"the first {len(examples)} images have no number below 0 (the greatest is {high:g}), and "
            "pixels must lie in [-1, 1]: scale them by 2 * image - 1, or leave them as uint8"
        )
    height, width, channels = first.shape
    return (height, width, channels), first.dtype


def check_alike(
    image: np.ndarray, shape: tuple[int, ...], dtype: np.dtype, place: str
) -> np.ndarray:
    """The image, if it has the shape and type of all others.

    **Raises:** `ValueError`, which names the place.
    """
    if image.shape != tuple(shape) or image.dtype != dtype:
        raise ValueError(
            f"{place} is a {image.dtype} image of shape {image.shape}, and the first one {dtype} of shape "
            f"{tuple(shape)}: give size= and channels= to make them alike"
        )
    return image
