"""What a sampler is: `init`, `step`, `finish`.

The same three functions are scanned by jax in Python (`samplers.drive`) and exported as three programs
that the native loop calls: one definition of sampling, two drivers.
"""

from abc import abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from diffusion_eqx._typing import Batch, BatchKeys, Cond, PRNGKey
from diffusion_eqx.denoiser import AbstractDenoiser
from diffusion_eqx.samplers.grid import AbstractGrid, Index
from diffusion_eqx.samplers.noise import draw, image_keys

# What samples are in the end; of another shape than the state's examples where these are latents.
Decoded: TypeAlias = Float[Array, "batch *decoded"]


class State(eqx.Module):
    """What the loop carries: the noisy examples, the key of each, and what a method remembers.

    Every array has the batch as its first axis, so that a state can be cut and padded by examples.
    """

    x: Batch
    keys: BatchKeys
    memory: Any = ()


class AbstractSampler(eqx.Module):
    """A method of turning noise into samples; knows the denoiser's call and its schedule, no more.

    A method defines `step` and what it remembers between steps; a grid says at which times it stops.
    `renoises`: whether each step adds noise back by the predicted eps, so that guidance that sets eps
    apart from x0 (`CFGPlusPlus`) is obeyed.

    **Raises:** `ValueError` if the denoiser's prediction is such a pair and the method does not renoise.
    """

    # A type checker takes an AbstractVar for an argument of __init__, a ClassVar not.
    if TYPE_CHECKING:
        denoiser: ClassVar[AbstractDenoiser]
        grid: ClassVar[AbstractGrid]
    else:
        denoiser: eqx.AbstractVar[AbstractDenoiser]
        grid: eqx.AbstractVar[AbstractGrid]
    renoises: eqx.AbstractClassVar[bool]

    def __check_init__(self):
        if not (self.renoises or self.denoiser.exact_pair):
            raise ValueError(
                f"{type(self).__name__} does not add noise back by the predicted eps, so CFG++ would be "
                "misread; use DDIMSampler, or ClassifierFreeGuidance in its place"
            )

    def init(
        self,
        shape: tuple[int, ...],
        steps: Index,
        *,
        key: PRNGKey,
        count: int,
        first: int | Int[Array, ""] = 0,
    ) -> State:
        """Draw `count` examples of pure noise, N(0, sigma(1)²), of `shape` each."""
        keys = image_keys(key, count, first)
        return self.start(draw(keys, 0, shape), steps, keys=keys)

    def start(self, noise: Batch, steps: Index, *, keys: BatchKeys) -> State:
        """Begin from given standard normal noise."""
        x = self.denoiser.schedule.sigma(jnp.asarray(1.0)) * noise
        return self.resume(x, 0, steps, keys=keys)

    def resume(self, x_t: Batch, index: Index, steps: Index, *, keys: BatchKeys) -> State:
        """Begin from noisy examples of the grid's time at `index`."""
        return State(x_t, keys, self.memory(x_t, index, steps))

    def times(self, index: Index, steps: Index) -> tuple[Float[Array, ""], Float[Array, ""]]:
        """The times (t, s) between which step `index` goes, t > s."""
        schedule = self.denoiser.schedule
        return self.grid(schedule, index, steps), self.grid(schedule, index + 1, steps)

    @abstractmethod
    def memory(self, x_t: Batch, index: Index, steps: Index) -> Any:
        """What is remembered before the first step, which is step `index`."""

    @abstractmethod
    def step(self, state: State, index: Index, steps: Index, cond: Cond = None) -> State:
        """One step, from the grid's time `index` to `index + 1`; `steps` in all."""

    @abstractmethod
    def finish(self, state: State) -> Decoded:
        """The samples. May be called after any step, for a preview."""


class AbstractMethod(AbstractSampler):
    """A sampler whose samples are what it arrives at."""

    def finish(self, state: State) -> Batch:
        """The state's examples as they are."""
        return state.x


class AbstractOneStepMethod(AbstractMethod):
    """A method that remembers nothing."""

    def memory(self, x_t: Batch, index: Index, steps: Index) -> Any:
        """Nothing."""
        return ()


class AbstractSamplerWrapper(AbstractSampler):
    """A sampler around a sampler, which stops at the same times and remembers the same."""

    if TYPE_CHECKING:
        sampler: ClassVar[AbstractSampler]
    else:
        sampler: eqx.AbstractVar[AbstractSampler]

    # The wrapped sampler has checked its denoiser.
    renoises: ClassVar[bool] = True

    @property
    def denoiser(self) -> AbstractDenoiser:
        """That of the wrapped sampler."""
        return self.sampler.denoiser

    @property
    def grid(self) -> AbstractGrid:
        """That of the wrapped sampler."""
        return self.sampler.grid

    def memory(self, x_t: Batch, index: Index, steps: Index) -> Any:
        """That of the wrapped sampler."""
        return self.sampler.memory(x_t, index, steps)


class AbstractFinish(AbstractSamplerWrapper):
    """Any sampler, walked as it walks; what its samples become at the end is the wrapper's."""

    def step(self, state: State, index: Index, steps: Index, cond: Cond = None) -> State:
        """A step of the wrapped sampler."""
        return self.sampler.step(state, index, steps, cond)


class ClippedSampler(AbstractFinish):
    """Any sampler, its samples clipped to [−1, 1]: for pixels."""

    sampler: AbstractSampler

    def finish(self, state: State) -> Decoded:
        """The wrapped sampler's samples, clipped to [−1, 1]."""
        return jnp.clip(self.sampler.finish(state), -1.0, 1.0)


class DecodedSampler(AbstractFinish):
    """Any sampler of latents, its samples decoded: (batch, *latent shape) to (batch, *image shape)."""

    sampler: AbstractSampler
    decode: Callable[[Batch], Decoded]

    def finish(self, state: State) -> Decoded:
        """The wrapped sampler's samples, decoded."""
        return self.decode(self.sampler.finish(state))
