"""The random numbers of a training batch: each row has its own, whatever else is in the batch.

Row r of step s draws from fold_in(fold_in(fold_in(root, role), s), r), where r counts in the batch of all
devices and processes. So a batch that is cut into parts, for accumulation or over processes, draws what the
whole batch would have drawn, and the gradient is the same.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, DTypeLike, Float, Int

from diffusion_eqx._typing import BatchKeys, PRNGKey
from diffusion_eqx.losses.importance import Importance
from diffusion_eqx.random_keys import TIME, role

# The smallest distance of a uniform number from 0 and from 1, so that quantiles there are finite.
_MARGIN = 2.0**-24


class Draws(eqx.Module):
    """What some rows of a batch may draw.

    - `root`: the key of the run.
    - `step`: the number of the batch.
    - `rows`: (batch,), the place of each row in the whole batch.
    - `total`: the number of rows of the whole batch.
    - `importance`: how often each part of the levels is drawn; None: all alike.
    """

    root: PRNGKey
    step: Int[Array, ""]
    rows: Int[Array, " batch"]
    total: int = eqx.field(static=True)
    importance: Importance | None = None

    @classmethod
    def of(cls, key: PRNGKey, count: int) -> "Draws":
        """The draws of one batch of `count` rows by itself."""
        return cls(key, jnp.zeros((), jnp.int32), jnp.arange(count, dtype=jnp.int32), count)

    def __len__(self) -> int:
        return len(self.rows)

    def keys(self, number: int) -> BatchKeys:
        """A key for each row, of one role: `draws.keys(random_keys.NOISE)`."""
        key = self.key(number)
        return jax.vmap(lambda row: jax.random.fold_in(key, row))(self.rows)

    def key(self, number: int) -> PRNGKey:
        """The one key of a role for the whole batch, the same for all its parts."""
        return jax.random.fold_in(role(self.root, number), self.step)

    def normal(self, number: int, shape: tuple[int, ...], dtype: DTypeLike) -> Float[Array, "..."]:
        """Numbers from N(0, 1) of a role, for each row of the given shape."""
        return jax.vmap(lambda key: jax.random.normal(key, shape, dtype))(self.keys(number))

    def uniforms(self) -> Float[Array, " batch"]:
        """A number in (0, 1) for each row, spread evenly over the whole batch: (k + offset)/total.

        The strata k = 0 … total − 1 are dealt out to the rows anew at each step, lest a process that always
        has the first rows sees the least noise only. Each number is uniform by itself, but the loss of a
        batch varies less than with independent ones (Kingma et al. 2021, appendix I.1).
        """
        key = self.key(TIME)
        offset = jax.random.uniform(role(key, 0), dtype=float)
        strata = jax.random.permutation(role(key, 1), self.total)[self.rows]
        spread = (strata.astype(offset.dtype) + offset) / self.total
        spread = jnp.clip(spread, _MARGIN, 1.0 - _MARGIN)
        return spread if self.importance is None else self.importance.warp(spread)
