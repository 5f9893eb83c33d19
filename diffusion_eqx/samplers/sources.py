"""Where the noise of a stochastic step comes from: drawn afresh, or read off one Brownian path."""

from abc import abstractmethod
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from diffusion_eqx._typing import Batch, BatchKeys
from diffusion_eqx._values import AbstractValue
from diffusion_eqx.samplers.noise import draw
from diffusion_eqx.samplers.state import PATH, State
from diffusion_eqx.schedules import GREATEST_LOG_SNR, LEAST_LOG_SNR, NoiseLevel, over


class AbstractNoise(AbstractValue):
    """Gives each stochastic step its standard normal noise; a source of your own defines just the call.

    `follows_a_path`: whether the noises of all steps are increments of one path, so that nothing is known
    of the path between them. Solvers that ask for a Lévy area refuse such a source.
    """

    follows_a_path: ClassVar[bool] = False

    @abstractmethod
    def __call__(self, state: State, t: NoiseLevel, s: NoiseLevel) -> Batch:
        """Noise of the shape of `state.x` for the step from level `t` to the cleaner level `s`."""


class IndependentNoise(AbstractNoise):
    """Fresh noise for each step."""

    def __call__(self, state: State, t: NoiseLevel, s: NoiseLevel) -> Batch:
        """Noise that depends on the example's key and on the number of the step."""
        return draw(state.keys, state.index + 1, state.x.shape[1:])


class BrownianNoise(AbstractNoise):
    """Increments of one Brownian path in lambda = log(alpha/sigma), divided by their standard deviation.

    The path of an image depends on its key alone, so taking more or fewer steps refines the same
    path and keeps the image's shape, which fresh noise would not. The path is found by halving
    intervals `depth` times (a Brownian bridge at each; Li et al. 2020, section 4), and is linear
    below. Cost: 2·depth + 2 draws of noise a step.
    """

    depth: int = eqx.field(static=True, default=18)

    follows_a_path: ClassVar[bool] = True

    def __call__(self, state: State, t: NoiseLevel, s: NoiseLevel) -> Batch:
        """The increment between the two levels."""
        shape = state.x.shape[1:]
        begin, end = path_place(t.lam), path_place(s.lam)
        increment = self.at(state.keys, end, shape) - self.at(state.keys, begin, shape)
        return increment / jnp.sqrt(jnp.maximum(end - begin, 1e-12))

    def at(self, keys: BatchKeys, place: Float[Array, "..."], shape: tuple[int, ...]) -> Batch:
        """The path at `place` in [0, 1], which stands for all of lambda's range; it is 0 at 0.

        `place`: one number for all examples, or one for each, which may have an example's axes.
        """
        keys = jax.vmap(lambda key: jax.random.fold_in(key, PATH))(keys)
        place = jnp.broadcast_to(place.reshape(place.shape[:1]), keys.shape)

        def halve(level, carry):
            node, left, low, high = carry
            width = 0.5 ** level.astype(place.dtype)
            # Nodes are numbered as in a heap: the root's children are 2 and 3.
            middle = 0.5 * (low + high) + 0.5 * jnp.sqrt(width) * draw(keys, node, shape)
            right = place >= left + 0.5 * width
            mask = over(right, low)
            return (
                2 * node + right.astype(node.dtype),
                left + jnp.where(right, 0.5 * width, 0.0),
                jnp.where(mask, middle, low),
                jnp.where(mask, high, middle),
            )

        end = draw(keys, 0, shape)
        root = jnp.ones(keys.shape, jnp.int32)
        start = (root, jnp.zeros_like(place), jnp.zeros_like(end), end)
        _, left, low, high = jax.lax.fori_loop(0, self.depth, halve, start)
        return low + (high - low) * over((place - left) * 2.0**self.depth, low)


def path_place(lam: Float[Array, "*s"]) -> Float[Array, "*s"]:
    """Where a lambda lies in its range, from 0 to 1: the clock of a Brownian path."""
    return (2.0 * lam - LEAST_LOG_SNR) / (GREATEST_LOG_SNR - LEAST_LOG_SNR)
