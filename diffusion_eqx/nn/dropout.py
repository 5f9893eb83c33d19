"""Dropout whose randomness may be that of each example alone."""

import equinox as eqx
import jax
from jaxtyping import Array, Float

from diffusion_eqx._typing import Keys


def dropped(
    dropout: eqx.nn.Dropout, x: Float[Array, "batch *shape"], key: Keys | None
) -> Float[Array, "batch *shape"]:
    """A batch with some features set to 0; what is dropped of example i depends on key i, if there is one.

    - `key`: one for the batch, or one for each example, (batch,); None while nothing is dropped.

    **Raises:** `RuntimeError` if dropout is active and there is no key.
    """
    if key is None or key.ndim == 0:
        return dropout(x, key=key)
    return jax.vmap(lambda example, one: dropout(example, key=one))(x, key)
