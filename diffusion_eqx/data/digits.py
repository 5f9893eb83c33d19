"""scikit-learn's digits: 1,797 real handwritten digits of 8x8 grey pixels; small enough for tests."""

import numpy as np
import sklearn.datasets

from diffusion_eqx.data.dataset import ImageDataset


def digits() -> ImageDataset:
    """The digits with their labels, scaled from 0 … 16 to [−1, 1]."""
    bunch = sklearn.datasets.load_digits()
    images = (bunch.images / 8.0 - 1.0).astype(np.float32)[..., None]
    return ImageDataset(images, bunch.target.astype(np.int32), tuple(str(d) for d in range(10)))
