"""What a sampler is: a method, a grid, a source of noise and numbers, and no network.

A method defines `step`, from one level to the next cleaner one; a denoiser is bound when something
is drawn. The same functions are scanned by jax in Python (`drive`) and exported as programs that
the native loop calls: one definition of sampling, two drivers.
"""

from abc import abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array

from diffusion_eqx._typing import Batch, BatchKeys, Cond, Real
from diffusion_eqx._values import AbstractValue, check_kind, is_known, numbers
from diffusion_eqx.denoiser import AbstractDenoiser, Prediction
from diffusion_eqx.guidance import guidance_of, keeps_pair
from diffusion_eqx.samplers.grid import AbstractGrid, TrailingGrid
from diffusion_eqx.samplers.sources import AbstractNoise, IndependentNoise
from diffusion_eqx.samplers.state import PerImage, State
from diffusion_eqx.schedules import AbstractSchedule, NoiseLevel

TreeT = TypeVar("TreeT")


class Bound(eqx.Module):
    """What a method sees of a denoiser while something is drawn: `denoise(x, level) -> Prediction`.

    - `denoiser`, `cond`: what is bound.
    - `skips`: whether numbers with a neutral value are switched off at run time by a branch
      (`unless_neutral`). A derivative by such a number must not be taken then.
    """

    denoiser: AbstractDenoiser
    cond: Cond = None
    skips: bool = eqx.field(static=True, default=False)

    @property
    def schedule(self) -> AbstractSchedule:
        """The denoiser's schedule, which makes levels between those of the grid."""
        return self.denoiser.schedule

    def __call__(self, x: Batch, level: NoiseLevel) -> Prediction:
        """The denoiser's prediction under the bound condition."""
        return self.denoiser(x, level.flat(), self.cond)

    def unless_neutral(
        self, value: Real, neutral: float, act: Callable[[], TreeT], rest: Callable[[], TreeT]
    ) -> TreeT:
        """`act()`, or `rest()` where the number has its neutral value, at which both must be equal.

        A known number decides while tracing; an array by a branch if the driver wants that, else it
        is `act()`.
        """
        if isinstance(value, int | float):
            return rest() if value == neutral else act()
        if not self.skips:
            return act()
        return jax.lax.cond(jnp.any(value != neutral), act, rest)


class Walk(eqx.Module):
    """The levels of a grid on a schedule, by index: `walk[index]`.

    With a known number of steps they are one table, computed before the loop.
    """

    grid: AbstractGrid
    schedule: AbstractSchedule
    steps: PerImage
    table: NoiseLevel | None = None

    @staticmethod
    def of(grid: AbstractGrid, schedule: AbstractSchedule, steps: int | PerImage) -> "Walk":
        """The walk in so many steps.

        **Raises:** `ValueError` if the number is known and the grid has not so many steps.
        """
        number = jnp.asarray(steps, jnp.int32)
        if not isinstance(steps, int):
            return Walk(grid, schedule, number)
        grid.check(schedule, steps)
        indices = jnp.arange(steps + 1, dtype=jnp.int32)
        return Walk(grid, schedule, number, grid(schedule, indices, number))

    def __getitem__(self, index: PerImage) -> NoiseLevel:
        """The level at an index 0 … steps, or the levels at one index for each image."""
        if self.table is None:
            return self.grid(self.schedule, jnp.asarray(index, jnp.int32), self.steps)
        return self.table[index]


class AbstractSampler(AbstractValue):
    """A way of turning noise into samples. A sampler of your own defines `step`, and `init` if it
    remembers.

    - `grid`: at which levels it stops.
    - `noise`: where the noise of stochastic steps comes from.

    Class variables describe it in the catalogue and to drivers:

    - `renoises`: whether each step adds noise back by the predicted eps, so that guidance that sets
      eps apart from x0 (`CFGPlusPlusGuidance`) is obeyed.
    - `stochastic`: whether its steps draw noise.
    - `remembers`: whether its steps use those before, so that going back would mislead it.
    - `evaluations`: calls of the denoiser in each step but the last, which takes one; None for as
      many as it needs.
    - `chooses_levels`: whether it chooses its levels itself and walks on no grid. The number of
      steps is then the most that an example may take, and one that does not arrive is not a number.
    - `reference`, `about`, `use`: where it is from, what it is, and when to use it.

    **Raises:** `ValueError` if a declared number is out of its range, or a source of noise is given
    to a sampler that draws none; `TypeError` if `grid` or `noise` is something else.
    """

    grid: AbstractGrid = eqx.field(default=TrailingGrid(), kw_only=True)
    noise: AbstractNoise = eqx.field(default=IndependentNoise(), kw_only=True)

    renoises: ClassVar[bool] = False
    stochastic: ClassVar[bool] = True
    remembers: ClassVar[bool] = False
    evaluations: ClassVar[int | None] = 1
    chooses_levels: ClassVar[bool] = False
    reference: ClassVar[str] = ""
    about: ClassVar[str] = ""
    use: ClassVar[str] = ""

    def __check_init__(self):
        name = type(self).__name__
        check_kind(self.grid, AbstractGrid, f"{name} needs a grid such as KarrasGrid()")
        check_kind(
            self.noise, AbstractNoise, f"{name} needs a source of noise such as BrownianNoise()"
        )
        if not self.stochastic and not isinstance(self.noise, IndependentNoise):
            raise ValueError(
                f"{name} draws no noise of its own; leave out `noise`, or "
                "choose a stochastic sampler"
            )

    @property
    def deterministic(self) -> bool:
        """Whether it is known that no step draws noise.

        For want of any, or by a number at its neutral value.
        """
        switches = [n for n in numbers(self).values() if n.neutral is not None]
        return not self.stochastic or any(is_known(n.value, n.neutral) for n in switches)

    def init(self, denoise: Bound, x: Batch, t: NoiseLevel, s: NoiseLevel) -> Any:
        """What is remembered before the first step, which goes from level `t` to `s`.

        Every array has the batch as its first axis.
        """
        return ()

    @abstractmethod
    def step(self, denoise: Bound, state: State, t: NoiseLevel, s: NoiseLevel) -> State:
        """One step, from level `t` to the cleaner level `s`: `state.moved(x_s)`.

        Levels have the axes of x, so that `s.alpha * x0` means what it says. In the last step `s`
        is clean, and the result is x0.
        """

    def advance(self, denoise: Bound, walk: Walk, state: State) -> State:
        """One step from wherever each example stands on the walk."""
        t, s = walk[state.index].over(state.x), walk[state.index + 1].over(state.x)
        return self.step(denoise, state, t, s)

    def begin(
        self, denoise: Bound, walk: Walk, x: Batch, index: PerImage, *, keys: BatchKeys
    ) -> State:
        """The state of noisy examples `x` of the walk's level at `index`."""
        t, s = walk[index].over(x), walk[index + 1].over(x)
        return State(x, keys, index, walk.steps, self.init(denoise, x, t, s))


class AbstractSamplerWrapper(AbstractSampler):
    """A sampler around a sampler, which remembers the same.

    It is to be made with the grid and the noise of the sampler within.
    """

    if TYPE_CHECKING:
        sampler: ClassVar[AbstractSampler]
    else:
        sampler: eqx.AbstractVar[AbstractSampler]

    def init(self, denoise: Bound, x: Batch, t: NoiseLevel, s: NoiseLevel) -> Any:
        """What the sampler within remembers."""
        return self.sampler.init(denoise, x, t, s)

    def step(self, denoise: Bound, state: State, t: NoiseLevel, s: NoiseLevel) -> State:
        """A step of the sampler within."""
        return self.sampler.step(denoise, state, t, s)


def check_pair_kept(sampler: AbstractSampler, denoiser: AbstractDenoiser) -> None:
    """**Raises:** `ValueError` if the denoiser sets eps apart from x0 and the sampler would misread
    that.
    """
    if sampler.renoises or keeps_pair(denoiser):
        return
    breaks = next(g for g in guidance_of(denoiser) if not g.keeps_pair)
    raise ValueError(
        f"{type(sampler).__name__} does not add noise back by the predicted eps, so "
        f"{type(breaks).__name__} would be "
        "misread; use DDIMSampler, or ClassifierFreeGuidance in its place"
    )


def unless_clean(
    s: NoiseLevel, t: NoiseLevel, then: Callable[[NoiseLevel], Array], otherwise: Array
) -> Array:
    """`then(level)` where `s` has noise, `otherwise` where it is clean: the one branch at the clean end.

    A prediction has no meaning at a clean level, so examples that are there are shown `t` in its place.
    """
    return jax.lax.cond(
        jnp.any(~s.clean),
        lambda: jnp.where(s.clean, otherwise, then(t.where(s.clean, s))),
        lambda: otherwise,
    )
