"""Any solver of diffrax, one step of it for each step of a grid."""

from abc import abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp

from diffusion_eqx._typing import Batch, Real
from diffusion_eqx.samplers.base import AbstractSampler, Bound
from diffusion_eqx.samplers.diffrax_terms import (
    Number,
    StepPath,
    flow_place,
    flow_scale,
    flow_term,
    reverse_place,
    reverse_scale,
    reverse_terms,
    silent_terms,
)
from diffusion_eqx.samplers.grid import AbstractGrid, LogSNRGrid
from diffusion_eqx.samplers.state import State
from diffusion_eqx.samplers.temperature import temperature
from diffusion_eqx.schedules import NoiseLevel, over


class AbstractDiffraxSampler(AbstractSampler):
    """One step of a diffrax solver for each step of a grid; the equation is the method's.

    The last step, to the clean level, is Euler's, which returns x0: no network has learnt what lies
    below the first timestep.
    """

    # A type checker takes an AbstractVar for an argument of __init__, a ClassVar not.
    if TYPE_CHECKING:
        solver: ClassVar[diffrax.AbstractSolver]
    else:
        solver: eqx.AbstractVar[diffrax.AbstractSolver]

    remembers: ClassVar[bool] = True
    evaluations: ClassVar[int | None] = None

    @abstractmethod
    def place(self, level: NoiseLevel) -> Number:
        """The solver's clock at a level."""

    @abstractmethod
    def scale(self, level: NoiseLevel) -> Number:
        """x over the solver's variable."""

    @abstractmethod
    def terms(self, denoise: Bound, state: State, t: NoiseLevel, s: NoiseLevel) -> Any:
        """The equation of the step from `t` to `s`."""

    def init(self, denoise: Bound, x: Batch, t: NoiseLevel, s: NoiseLevel) -> Any:
        """The solver's own state."""
        terms = silent_terms(x, stochastic=self.stochastic)
        return _spread(self.solver.init(terms, self.place(t), self.place(s), x, None), x)

    def step(self, denoise: Bound, state: State, t: NoiseLevel, s: NoiseLevel) -> State:
        """One step; the last one returns x0."""
        terms = self.terms(denoise, state, t, s)

        def euler() -> tuple[Batch, Any]:
            return s.noised(*denoise(state.x, t)), state.memory

        def solved() -> tuple[Batch, Any]:
            # An example at its last step is shown t twice, and takes Euler's step instead.
            level = t.where(s.clean, s)
            y, _, _, solver_state, _ = self.solver.step(
                terms,
                self.place(t),
                self.place(level),
                state.x / self.scale(t),
                None,
                state.memory,
                False,
            )
            x, memory = self.scale(level) * y, _spread(solver_state, state.x)
            if s.clean.ndim == 0:
                return x, memory
            return jnp.where(s.clean, euler()[0], x), memory

        x, memory = jax.lax.cond(jnp.any(~s.clean), solved, euler)
        return state.moved(x, memory)


class DiffraxODESampler(AbstractDiffraxSampler):
    """The probability-flow ODE by any explicit solver of diffrax, with fixed steps (Kidger 2021).

    - `solver`: e.g. `diffrax.Heun()`, `diffrax.Tsit5()`.

    Cost: the solver's stages a step (Tsit5: 6), one evaluation in the last.
    """

    solver: diffrax.AbstractSolver = diffrax.Heun()
    grid: AbstractGrid = eqx.field(default=LogSNRGrid(), kw_only=True)

    stochastic: ClassVar[bool] = False
    reference: ClassVar[str] = "Kidger 2021"
    about: ClassVar[str] = "the probability-flow ODE by a solver of diffrax, fixed steps"
    use: ClassVar[str] = "research on solvers; `diffrax:Heun`, `diffrax:Tsit5`, `diffrax:Dopri5`, …"

    def place(self, level: NoiseLevel) -> Number:
        """u = alpha/(alpha + sigma)."""
        return flow_place(level)

    def scale(self, level: NoiseLevel) -> Number:
        """alpha + sigma."""
        return flow_scale(level)

    def terms(self, denoise: Bound, state: State, t: NoiseLevel, s: NoiseLevel) -> Any:
        """dy/du = x0 − eps."""
        return flow_term(denoise)


class DiffraxSDESampler(AbstractDiffraxSampler):
    """The reverse SDE by a stochastic solver of diffrax, with fixed steps (Song et al. 2021, section 4.1).

    - `solver`: `diffrax.Euler()` (Euler-Maruyama), `diffrax.Heun()` (Stratonovich and Itô are the
      same for noise that does not depend on the state), `diffrax.SEA()`, `diffrax.ShARK()` or
      another for additive noise.
    - `temperature`: scale of the noise.

    Cost: the solver's stages a step. Far more steps are needed than with
    `DPMSolverPlusPlusSampler(eta=1)`, which integrates the linear part exactly.
    """

    solver: diffrax.AbstractSolver = diffrax.Euler()
    temperature: Real = temperature()
    grid: AbstractGrid = eqx.field(default=LogSNRGrid(), kw_only=True)

    reference: ClassVar[str] = "Song et al. 2021, section 4.1"
    about: ClassVar[str] = "the reverse SDE by a solver of diffrax, fixed steps"
    use: ClassVar[str] = (
        "hundreds of steps; `sde:Euler` (Euler-Maruyama), `sde:Heun`, `sde:ShARK`, …"
    )

    def place(self, level: NoiseLevel) -> Number:
        """lambda."""
        return reverse_place(level)

    def scale(self, level: NoiseLevel) -> Number:
        """sqrt(alpha² + sigma²)."""
        return reverse_scale(level)

    def terms(self, denoise: Bound, state: State, t: NoiseLevel, s: NoiseLevel) -> Any:
        """The SDE, its noise being that of this step."""

        def increment(begin: Number, end: Number) -> Batch:
            return jnp.sqrt(end - begin) * self.noise(state, t, s)

        def area(begin: Number, end: Number) -> Batch:
            return jnp.sqrt((end - begin) / 12.0) * state.second_draw()

        path = StepPath(increment=increment, area=None if self.noise.follows_a_path else area)
        return reverse_terms(denoise, path, self.temperature)


def _spread(solver_state: Any, x: Batch) -> Any:
    """Give the solver's single numbers the batch axis that all of a sampler's memory must have."""

    def spread(leaf: Any) -> Any:
        array = jnp.asarray(leaf)
        return over(jnp.broadcast_to(array, (len(x),)), x) if array.ndim == 0 else array

    return jax.tree.map(spread, solver_state)
