"""How far reconstructed images are from the originals."""

import numpy as np


def peak_signal_to_noise_ratio(images: np.ndarray, originals: np.ndarray) -> float:
    """10·log10(range²/mean squared error) in decibels, for images in [−1, 1], whose range is 2.

    - `images`, `originals`: arrays of one shape.

    Equal images give infinity.

    **Raises:** `ValueError` if the shapes differ.
    """
    if images.shape != originals.shape:
        raise ValueError(f"shapes must be equal; got {images.shape} and {originals.shape}")
    error = np.mean((images.astype(np.float64) - originals.astype(np.float64)) ** 2)
    return float(10.0 * np.log10(4.0 / error)) if error > 0.0 else float("inf")
