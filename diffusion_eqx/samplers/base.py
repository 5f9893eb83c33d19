"""What a sampler is: `init`, `step`, `finish`.

The same three functions are scanned by jax in Python (`samplers.drive`) and exported as three programs
that the native loop calls: one definition of sampling, two drivers.
"""

from abc import abstractmethod

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from diffusion_eqx._typing import Batch, BatchKeys, Cond, PRNGKey
from diffusion_eqx.denoiser import AbstractDenoiser
from diffusion_eqx.samplers.grid import AbstractGrid, Index
from diffusion_eqx.samplers.noise import draw, image_keys


class State(eqx.Module):
    """What the loop carries: the noisy examples, and the key of each."""

    x: Batch
    keys: BatchKeys


class AbstractSampler(eqx.Module):
    """A method of turning noise into samples; knows the denoiser's call and its schedule, no more.

    A method defines `step`; `init` and `finish` are the same for all.
    """

    denoiser: eqx.AbstractVar[AbstractDenoiser]
    grid: eqx.AbstractVar[AbstractGrid]

    def init(
        self,
        shape: tuple[int, ...],
        steps: Index,
        *,
        key: PRNGKey,
        count: int,
        first: int | Int[Array, ""] = 0,
    ) -> State:
        """Draw `count` examples of pure noise, N(0, sigma(t_0)²), of `shape` each."""
        keys = image_keys(key, count, first)
        return self.start(draw(keys, 0, shape), steps, keys=keys)

    def start(self, noise: Batch, steps: Index, *, keys: BatchKeys) -> State:
        """Begin from given standard normal noise."""
        schedule = self.denoiser.schedule
        return State(schedule.sigma(jnp.asarray(1.0)) * noise, keys)

    def times(self, index: Index, steps: Index) -> tuple[Float[Array, ""], Float[Array, ""]]:
        """The times (t, s) between which step `index` goes, t > s."""
        schedule = self.denoiser.schedule
        return self.grid(schedule, index, steps), self.grid(schedule, index + 1, steps)

    @abstractmethod
    def step(self, state: State, index: Index, steps: Index, cond: Cond = None) -> State:
        """One step, from the grid's time `index` to `index + 1`; `steps` in all."""

    def finish(self, state: State) -> Batch:
        """The samples, in [−1, 1]. May be called after any step, for a preview."""
        return jnp.clip(state.x, -1.0, 1.0)
