"""How commands draw from a model."""

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from diffusion_eqx.models import AbstractDiffusionModel


def check_seed(seed: int) -> None:
    """Refuse a seed that is none.

    **Raises:** `ValueError`.
    """
    if not 0 <= seed < 2**32:
        raise ValueError(f"--seed must be in 0 … {2**32 - 1}; got {seed}")


def draw(
    model: "AbstractDiffusionModel", count: int, sampler: str | None, **options: Any
) -> np.ndarray:
    """Images (count, height, width, channels) in [−1, 1].

    - `options`: those of `model.sample_batches`.

    **Raises:** `ValueError` as it; `ArithmeticError` if a number is not finite.
    """
    images = np.concatenate(list(model.sample_batches(count, sampler, **options)))
    if not np.isfinite(images).all():
        raise ArithmeticError("some images are not finite: the model met numbers it cannot handle")
    return images
