"""Embeddings of noise level and class: they tell a backbone how noisy its input is, and of what class."""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float

from diffusion_eqx._typing import Labels, PRNGKey
from diffusion_eqx.nn.linear import Linear
from diffusion_eqx.precision import wide

_MAX_PERIOD = 10_000.0


def sinusoidal_features(
    c_noise: Float[Array, " batch"], features: int, max_period: float = _MAX_PERIOD
) -> Float[Array, "batch {features}"]:
    """cos and then sin of c_noise · max_period^(−i/half), i = 0 … half − 1 (Vaswani et al. 2017, 3.5).

    - `c_noise`: (batch,), what the backbone is told of the noise level
    - `features`: twice `half`
    - `max_period`: the longest wavelength is nearly 2π times this number

    The result is float32 (float64 for float64): a timestep of 999 in bfloat16 would be 1000.

    **Raises:** `ValueError` if `features` is odd.
    """
    if features % 2:
        raise ValueError(
            f"a cosine for every sine needs an even number of features; got {features}"
        )
    half = features // 2
    dtype = wide(c_noise.dtype)
    frequencies = np.exp(-math.log(max_period) * np.arange(half) / half)
    phase = c_noise.astype(dtype)[:, None] * jnp.asarray(frequencies, dtype)[None]
    return jnp.concatenate([jnp.cos(phase), jnp.sin(phase)], axis=-1)


class TimeEmbedding(eqx.Module):
    """Sinusoidal features of the noise level, through two linear layers with a SiLU between.

    - `dim`: features of the result
    - `features`: sinusoidal features, an even number; by default as many as `dim`
    - `max_period`: as in `sinusoidal_features`

    **Raises:** `ValueError` if the number of sinusoidal features is odd.
    """

    hidden: Linear
    out: Linear
    max_period: float = eqx.field(static=True)

    def __init__(
        self,
        dim: int,
        *,
        features: int | None = None,
        max_period: float = _MAX_PERIOD,
        key: PRNGKey,
    ):
        features = dim if features is None else features
        if features % 2:
            raise ValueError(
                f"a time embedding needs an even number of sinusoidal features; got {features}"
            )
        key_hidden, key_out = jax.random.split(key)
        self.hidden = Linear(features, dim, key=key_hidden)
        self.out = Linear(dim, dim, key=key_out)
        self.max_period = max_period

    def __call__(self, c_noise: Float[Array, " batch"]) -> Float[Array, "batch dim"]:
        """(batch,) to (batch, dim) in the dtype of the weights; the features are at least float32."""
        features, dtype = self.hidden.weight.shape[0], self.hidden.weight.dtype
        # With weights in float64, the features are computed in it too.
        c_noise = c_noise.astype(np.promote_types(wide(c_noise.dtype), wide(dtype)))
        embedded = sinusoidal_features(c_noise, features, self.max_period).astype(dtype)
        return self.out(jax.nn.silu(self.hidden(embedded)))


class ClassEmbedding(eqx.Module):
    """One learned vector for each class and, as the last row, one for "no class".

    - `num_classes`: labels are 0 … num_classes − 1; the label num_classes means "no class"
    - `dim`: features of a vector
    """

    table: Float[Array, "classes_and_null dim"]

    def __init__(self, num_classes: int, dim: int, *, key: PRNGKey):
        # As large as it may be: small vectors are learned late, and short runs would ignore their labels.
        self.table = jax.random.normal(key, (num_classes + 1, dim))

    def __call__(self, labels: Labels | None, batch: int) -> Float[Array, "{batch} dim"]:
        """The vectors of the labels, (batch, dim).

        - `labels`: integers of shape (batch,); None means "no class" for the whole batch
        - `batch`: how many examples there are

        **Raises:** `ValueError` as `check_labels`.
        """
        if labels is None:
            return jnp.broadcast_to(self.table[-1:], (batch, self.table.shape[1]))
        check_labels(labels, self.table.shape[0] - 1, batch)
        return self.table[labels]


def check_labels(labels: Labels, num_classes: int, batch: int) -> None:
    """Refuse labels that no class embedding of `num_classes` classes has for a batch.

    The values are checked where they are known. Inside `jax.jit` only the shape and dtype are: check the
    labels before.

    **Raises:** `ValueError` unless the labels are integers of shape (batch,) in 0 … num_classes.
    """
    if not hasattr(labels, "dtype") or not jnp.issubdtype(labels.dtype, jnp.integer):
        kind = getattr(labels, "dtype", type(labels).__name__)
        raise ValueError(
            f"cond must be None or integer labels, an array of shape ({batch},); got {kind}"
        )
    if labels.shape != (batch,):
        raise ValueError(
            f"cond must hold one label for each of the {batch} examples, shape ({batch},); got shape "
            f"{labels.shape}"
        )
    if isinstance(labels, Tracer) or not batch:
        return
    values = np.asarray(labels)
    if values.min() < 0 or values.max() > num_classes:
        raise ValueError(
            f"labels must be in 0 … {num_classes - 1}, or {num_classes} for 'no class'; got "
            f"{values.min()} … {values.max()}"
        )


class ConditionEmbedding(eqx.Module):
    """What a backbone is told beside its input: the sum of a time and a class embedding.

    - `dim`: features of the result
    - `num_classes`: None for a network without classes, which takes no labels
    - `features`: sinusoidal features of the time embedding; by default as many as `dim`
    """

    time: TimeEmbedding
    classes: ClassEmbedding | None

    def __init__(
        self, dim: int, *, num_classes: int | None, features: int | None = None, key: PRNGKey
    ):
        key_time, key_classes = jax.random.split(key)
        self.time = TimeEmbedding(dim, features=features, key=key_time)
        self.classes = (
            None if num_classes is None else ClassEmbedding(num_classes, dim, key=key_classes)
        )

    def __call__(
        self, c_noise: Float[Array, " batch"], cond: Labels | None
    ) -> Float[Array, "batch dim"]:
        """(batch, dim) in the dtype of the weights.

        - `c_noise`: (batch,), what the parameterization says of the noise level
        - `cond`: None, or integer labels of shape (batch,), where num_classes means "no class". None means
          "no class" for the whole batch.

        **Raises:** `ValueError` if there are labels but no classes, and as `check_labels`.
        """
        embedding = self.time(c_noise)
        if self.classes is not None:
            return embedding + self.classes(cond, c_noise.shape[0])
        if cond is not None:
            raise ValueError(
                "this network has no class embedding and takes no labels: build it with num_classes, or "
                "pass cond=None"
            )
        return embedding
