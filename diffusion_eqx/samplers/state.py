"""What the loop of a sampler carries."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from diffusion_eqx._typing import Batch, BatchKeys
from diffusion_eqx.samplers.noise import draw
from diffusion_eqx.schedules import over

# Roles of a key beyond those of the steps' own noise, i + 1: no step is numbered so high.
SECOND_DRAW = 2**29
PATH = 2**30

PerImage = Int[Array, ""] | Int[Array, " batch"]


class State(eqx.Module):
    """The noisy examples, the key of each, how far they are, and what the method remembers.

    - `x`: (batch, *shape).
    - `keys`: the random key of each example, which does not change.
    - `index`: the number of steps taken, of shape () for all examples or (batch,).
    - `steps`: the number of steps in all, of the shape of `index`.
    - `memory`: a PyTree of arrays whose first axis is the batch.
    """

    x: Batch
    keys: BatchKeys
    index: PerImage
    steps: PerImage
    memory: Any = ()

    @property
    def left(self) -> PerImage:
        """The number of steps still to be taken."""
        return self.steps - self.index

    def column(self, number: PerImage) -> Array:
        """A number for each example with the axes that it needs to multiply x."""
        return over(jnp.asarray(number), self.x)

    def moved(self, x: Batch, memory: Any = None) -> "State":
        """The state one step further, at `x`; without a memory given, the old one is kept."""
        kept = self.memory if memory is None else memory
        return State(x, self.keys, self.index + 1, self.steps, kept)

    def moved_to(self, x: Batch) -> "State":
        """The state with other examples, no step further."""
        return State(x, self.keys, self.index, self.steps, self.memory)

    def second_draw(self) -> Batch:
        """Standard normal noise of this step that is independent of what a source of noise gives it."""
        return draw(self.keys, self.index + SECOND_DRAW, self.x.shape[1:])


def check_moved(sampler: Any, before: State, after: Any) -> None:
    """**Raises:** `TypeError` if what a sampler's step gave is no state like the one before it."""
    name = type(sampler).__name__
    if not isinstance(after, State):
        raise TypeError(
            f"{name}.step must return state.moved(x) or state.moved(x, memory); it returned a "
            f"{type(after).__name__}"
        )
    if after.x.shape != before.x.shape or after.x.dtype != before.x.dtype:
        raise TypeError(
            f"{name}.step was given examples {before.x.dtype}{before.x.shape} and returned "
            f"{after.x.dtype}{after.x.shape}; the two must be alike"
        )
    old, new = _shapes(before.memory), _shapes(after.memory)
    if old != new:
        raise TypeError(
            f"{name}.step must remember arrays like those of its init; init gave {old}, step gave {new}"
        )


def _shapes(memory: Any) -> Any:
    return jax.tree.map(lambda a: f"{jnp.result_type(a)}{list(jnp.shape(a))}", memory)
