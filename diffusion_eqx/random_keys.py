"""Random keys: one for each role, and keys as plain numbers for files and exported programs.

A key that is used twice gives the same numbers twice. Whoever needs several independent sources from one
key therefore takes one for each role: `role(key, NOISE)`. In jax `split(key, n)[i]` equals
`fold_in(key, i)`, so the numbers of the roles are far from those of images, steps and parts.
"""

from typing import Any, Final

import jax
import jax.numpy as jnp
from jaxtyping import Array, DTypeLike, Float, Int

from diffusion_eqx._typing import Keys

# Each number spells four letters of its name in ASCII. They are fixed: a resumed run depends on them.
INIT: Final = 0x494E4954  # Initial weights.
DATA: Final = 0x44415441  # The order of the data, and augmentation.
STEP: Final = 0x53544550  # Training: step i has the key fold_in(role(key, STEP), i).
TIME: Final = 0x54494D45  # The noise levels of a batch.
NOISE: Final = 0x4E4F4953  # The noise of a batch.
DROP: Final = 0x44524F50  # Which conditions are dropped.
NET: Final = 0x4E455457  # The network's own randomness, such as dropout.
AUGMENT: Final = 0x4155474D  # What is changed at random in an example, such as a flip.
EVAL: Final = 0x4556414C  # Evaluation.
CALLBACK: Final = 0x43414C4C  # Callbacks of a training run.


def role(key: Keys, number: int | Int[Array, ""]) -> Keys:
    """The key of one role. It is independent of the keys of other roles and of what `key` is split into.

    `key`: one key, or one for each example, (batch,); so is the result.
    """
    fold = jax.random.fold_in
    return fold(key, number) if key.ndim == 0 else jax.vmap(fold, (0, None))(key, number)


def normal(key: Keys, shape: tuple[int, ...], dtype: DTypeLike) -> Float[Array, "batch *shape"]:
    """Numbers from N(0, 1), for a batch of that shape; example i by key i if there is one for each."""
    if key.ndim == 0:
        return jax.random.normal(key, shape, dtype)
    return jax.vmap(lambda one: jax.random.normal(one, shape[1:], dtype))(key)


def is_key(leaf: Any) -> bool:
    """Whether an array (or the shape and dtype of one) holds typed random keys."""
    return hasattr(leaf, "dtype") and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def to_numbers(tree: Any) -> Any:
    """Replace each array of keys, of shape S, by its uint32 numbers, of shape S + (2,)."""
    return jax.tree.map(lambda leaf: jax.random.key_data(leaf) if is_key(leaf) else leaf, tree)


def to_keys(tree: Any, like: Any) -> Any:
    """The inverse of `to_numbers`; `like` says which arrays were keys."""

    def keys(leaf: Any, model: Any) -> Any:
        if not is_key(model):
            return leaf
        return jax.random.wrap_key_data(leaf, impl=jax.random.key_impl(model))

    return jax.tree.map(keys, tree, like)
