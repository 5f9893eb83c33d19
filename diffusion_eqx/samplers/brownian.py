"""Where the noise of a stochastic step comes from: drawn afresh, or read off one Brownian path."""

from abc import abstractmethod

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from diffusion_eqx._typing import Batch, BatchKeys
from diffusion_eqx.samplers.noise import draw
from diffusion_eqx.schedules.base import GREATEST_LAMBDA, LEAST_LAMBDA

# The role of a path's key among those of `draw`; no step is numbered so high.
_PATH = 2**31 - 1


class AbstractNoise(eqx.Module):
    """Gives each stochastic step its standard normal noise."""

    @abstractmethod
    def __call__(
        self,
        keys: BatchKeys,
        index: int | Int[Array, ""],
        span: tuple[Float[Array, ""], Float[Array, ""]],
        shape: tuple[int, ...],
    ) -> Batch:
        """Noise of step `index`, which goes from lambda = log(alpha/sigma) = span[0] up to span[1]."""


class IndependentNoise(AbstractNoise):
    """Fresh noise for each step."""

    def __call__(self, keys, index, span, shape) -> Batch:
        """See the base class."""
        return draw(keys, index + 1, shape)


class BrownianNoise(AbstractNoise):
    """Increments of one Brownian path in lambda, divided by their standard deviation.

    The path of an image depends on its key alone, so taking more or fewer steps refines the same path and
    keeps the image's shape, which fresh noise would not. It is found by halving intervals `depth` times
    (a Brownian bridge at each; Li et al. 2020, section 4), and is linear below. Cost: 2·depth + 2 draws of
    noise a step.
    """

    depth: int = eqx.field(static=True, default=18)

    def __call__(self, keys, index, span, shape) -> Batch:
        """See the base class."""
        begin, end = (path_place(at) for at in span)
        increment = self.at(keys, end, shape) - self.at(keys, begin, shape)
        return increment / jnp.sqrt(jnp.maximum(end - begin, 1e-12))

    def at(self, keys: BatchKeys, place: Float[Array, ""], shape: tuple[int, ...]) -> Batch:
        """The path at `place` in [0, 1], which stands for all of lambda's range; 0 at 0."""
        keys = jax.vmap(lambda key: jax.random.fold_in(key, _PATH))(keys)

        def halve(level, carry):
            node, left, low, high = carry
            width = 0.5**level
            # Nodes are numbered as in a heap: the root's children are 2 and 3.
            middle = 0.5 * (low + high) + 0.5 * jnp.sqrt(width) * draw(keys, node, shape)
            right = place >= left + 0.5 * width
            return (
                2 * node + right,
                left + jnp.where(right, 0.5 * width, 0.0),
                jnp.where(right, middle, low),
                jnp.where(right, high, middle),
            )

        end = draw(keys, 0, shape)
        start = (jnp.asarray(1, jnp.int32), jnp.zeros(()), jnp.zeros_like(end), end)
        _, left, low, high = jax.lax.fori_loop(0, self.depth, halve, start)
        return low + (high - low) * (place - left) * 2.0**self.depth


def path_place(at: Float[Array, ""]) -> Float[Array, ""]:
    """Where a lambda lies in its range, from 0 to 1: the clock of a Brownian path."""
    return (at - LEAST_LAMBDA) / (GREATEST_LAMBDA - LEAST_LAMBDA)
