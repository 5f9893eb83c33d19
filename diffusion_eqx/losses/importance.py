"""Times that are trained more often where the loss is large."""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

# The share of examples that are drawn evenly, so that no level is forgotten.
_EVEN = 0.1
# How much of a bin's history a new loss replaces.
_RATE = 0.1


class Importance(eqx.Module):
    """Draws each of K equal parts of (0, 1) by the root mean square of its loss (Nichol & Dhariwal 2021,
    eq. 18), and divides the loss by how often that is: the objective stays the same, its variance falls.

    - `history`: (K,), a moving average of the squared loss of each part; 1 at the start.
    """

    history: Float[Array, " parts"]

    @classmethod
    def even(cls, parts: int = 64) -> "Importance":
        """All parts alike, as before the first step.

        **Raises:** `ValueError` for less than two parts.
        """
        if parts < 2:
            raise ValueError(f"importance needs at least two parts of the levels; got {parts}")
        return cls(jnp.ones(parts, jnp.float32))

    def probabilities(self) -> Float[Array, " parts"]:
        """How often each part is drawn."""
        size = jnp.sqrt(self.history)
        return (1.0 - _EVEN) * size / jnp.sum(size) + _EVEN / len(self.history)

    def warp(self, uniforms: Float[Array, " batch"]) -> Float[Array, " batch"]:
        """Numbers of the density that the class says, from uniform ones: a piecewise linear quantile."""
        shares = self.probabilities().astype(uniforms.dtype)
        ends = jnp.cumsum(shares)
        part = jnp.minimum(jnp.searchsorted(ends, uniforms), len(shares) - 1)
        inside = (uniforms - (ends[part] - shares[part])) / shares[part]
        warped = (part.astype(uniforms.dtype) + jnp.clip(inside, 0.0, 1.0)) / len(shares)
        return jnp.clip(warped, 2.0**-24, 1.0 - 2.0**-24)

    def weight(self, warped: Float[Array, " batch"]) -> Float[Array, " batch"]:
        """1/(K·p): what the loss at each warped number is multiplied by."""
        weight = 1.0 / (len(self.history) * self.probabilities())
        return weight[self._part(warped)].astype(warped.dtype)

    def updated(
        self, warped: Float[Array, " batch"], losses: Float[Array, " batch"]
    ) -> "Importance":
        """With the losses of a whole batch, before they are weighted."""
        part = self._part(warped)
        zeros = jnp.zeros_like(self.history)
        count = zeros.at[part].add(1.0)
        total = zeros.at[part].add(losses.astype(jnp.float32) ** 2)
        mean = total / jnp.maximum(count, 1.0)
        moved = self.history + _RATE * (mean - self.history)
        return Importance(jnp.where(count > 0.0, moved, self.history))

    def _part(self, warped: Float[Array, " batch"]) -> Array:
        parts = len(self.history)
        return jnp.clip(jnp.floor(warped * parts).astype(jnp.int32), 0, parts - 1)
