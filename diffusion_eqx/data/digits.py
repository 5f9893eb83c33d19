"""scikit-learn's digits: 1,797 real handwritten digits of 8x8 grey pixels; small enough for tests."""

import numpy as np

from diffusion_eqx.data.image_dataset import ImageDataset


def digits() -> ImageDataset:
    """The digits with their labels, scaled from 0 … 16 to [−1, 1]: (1797, 8, 8, 1) float32."""
    import sklearn.datasets  # Loading it takes seconds.

    pixels, labels = sklearn.datasets.load_digits(return_X_y=True)
    images = (np.asarray(pixels) / 8.0 - 1.0).astype(np.float32).reshape(-1, 8, 8, 1)
    return ImageDataset(images, labels, tuple(str(digit) for digit in range(10)))
