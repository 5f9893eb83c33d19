"""Any solver of diffrax, one step of it for each step of a grid."""

from typing import Any, ClassVar

import diffrax
import jax
import jax.numpy as jnp

from diffusion_eqx._typing import Batch, BatchKeys, Cond, Real
from diffusion_eqx.denoiser import AbstractDenoiser
from diffusion_eqx.samplers.base import AbstractMethod, State
from diffusion_eqx.samplers.brownian import AbstractNoise, IndependentNoise
from diffusion_eqx.samplers.diffrax_terms import (
    Number,
    Silent,
    StepPath,
    flow_place,
    flow_scale,
    flow_term,
    reverse_place,
    reverse_scale,
    reverse_terms,
)
from diffusion_eqx.samplers.grid import AbstractGrid, Index, LogSNRGrid
from diffusion_eqx.samplers.noise import draw


class DiffraxODESampler(AbstractMethod):
    """The probability-flow ODE by any explicit solver of diffrax, with fixed steps.

    `solver`: e.g. `diffrax.Heun()`, `diffrax.Tsit5()`. The last step, to t = 0, is Euler's, which returns
    x0: no network has learnt what lies below the first timestep. Cost: the solver's stages a step
    (Tsit5: 6), one evaluation in the last.
    """

    denoiser: AbstractDenoiser
    solver: diffrax.AbstractSolver = diffrax.Heun()
    grid: AbstractGrid = LogSNRGrid()

    renoises: ClassVar[bool] = False

    def memory(self, x_t: Batch, index: Index, steps: Index) -> Any:
        """The solver's own state."""
        t, s = self.times(index, steps)
        schedule = self.denoiser.schedule
        begin, end = flow_place(schedule, t), flow_place(schedule, s)
        return _spread(self._initial(begin, end, x_t), len(x_t))

    def step(self, state: State, index: Index, steps: Index, cond: Cond = None) -> State:
        """One step; the last one (s = 0) returns x0."""
        t, s = self.times(index, steps)
        schedule = self.denoiser.schedule
        term = flow_term(self.denoiser, cond)

        def solve() -> tuple[Batch, Any]:
            y, _, _, solver_state, _ = self.solver.step(
                term,
                flow_place(schedule, t),
                flow_place(schedule, s),
                state.x / flow_scale(schedule, t),
                None,
                _gather(state.memory, jax.eval_shape(self._initial, t, s, state.x)),
                False,
            )
            return flow_scale(schedule, s) * y, _spread(solver_state, len(state.x))

        def jump() -> tuple[Batch, Any]:
            return _jump(self.denoiser, state.x, t, s, cond), state.memory

        x, memory = jax.lax.cond(s > 0.0, solve, jump)
        return State(x, state.keys, memory)

    def _initial(self, begin: Number, end: Number, y: Batch) -> Any:
        term = flow_term(Silent(self.denoiser.schedule), None)
        return self.solver.init(term, begin, end, y, None)


class DiffraxSDESampler(AbstractMethod):
    """The reverse SDE by a stochastic solver of diffrax, with fixed steps.

    `solver`: `diffrax.Euler()` (Euler-Maruyama), `diffrax.Heun()` (Stratonovich and Itô are the same for
    noise that does not depend on the state), `diffrax.SEA()`, `diffrax.ShARK()` or another for additive
    noise. The last step, to t = 0, returns x0. Cost: the solver's stages a step. Far more steps are needed
    than with `DPMSolverPlusPlus(eta=1)`, which integrates the linear part exactly.
    """

    denoiser: AbstractDenoiser
    solver: diffrax.AbstractSolver = diffrax.Euler()
    grid: AbstractGrid = LogSNRGrid()
    temperature: Real = 1.0
    noise: AbstractNoise = IndependentNoise()

    renoises: ClassVar[bool] = False

    def memory(self, x_t: Batch, index: Index, steps: Index) -> Any:
        """The solver's own state."""
        t, s = self.times(index, steps)
        schedule = self.denoiser.schedule
        begin, end = reverse_place(schedule, t), reverse_place(schedule, s)
        return _spread(self._initial(begin, end, x_t), len(x_t))

    def step(self, state: State, index: Index, steps: Index, cond: Cond = None) -> State:
        """One step; the last one (s = 0) returns x0."""
        t, s = self.times(index, steps)
        schedule = self.denoiser.schedule
        begin, end = reverse_place(schedule, t), reverse_place(schedule, s)
        terms = self._terms(state.x, state.keys, t, s, index, cond)

        def solve() -> tuple[Batch, Any]:
            w, _, _, solver_state, _ = self.solver.step(
                terms,
                begin,
                end,
                state.x / reverse_scale(schedule, t),
                None,
                _gather(state.memory, jax.eval_shape(self._initial, begin, end, state.x)),
                False,
            )
            return reverse_scale(schedule, s) * w, _spread(solver_state, len(state.x))

        def jump() -> tuple[Batch, Any]:
            return _jump(self.denoiser, state.x, t, s, cond), state.memory

        x, memory = jax.lax.cond(s > 0.0, solve, jump)
        return State(x, state.keys, memory)

    def _initial(self, begin: Number, end: Number, w: Batch) -> Any:
        def nothing(begin: Number, end: Number) -> Batch:
            return jnp.zeros_like(w)

        path = StepPath(increment=nothing, area=nothing)
        terms = reverse_terms(Silent(self.denoiser.schedule), None, path, 1.0)
        return self.solver.init(terms, begin, end, w, None)

    def _terms(
        self,
        x: Batch,
        keys: BatchKeys,
        t: Number,
        s: Number,
        index: Index,
        cond: Cond,
    ) -> diffrax.MultiTerm:
        """The SDE, its noise being that of step `index`."""
        schedule = self.denoiser.schedule
        span = schedule.half_log_snr(t), schedule.half_log_snr(s)

        def increment(begin: Number, end: Number) -> Batch:
            return jnp.sqrt(end - begin) * self.noise(keys, index, span, x.shape[1:])

        def area(begin: Number, end: Number) -> Batch:
            own = jax.vmap(lambda key: jax.random.fold_in(key, index + 1))(keys)
            return jnp.sqrt((end - begin) / 12.0) * draw(own, 1, x.shape[1:])

        known = isinstance(self.noise, IndependentNoise)
        path = StepPath(increment=increment, area=area if known else None)
        return reverse_terms(self.denoiser, cond, path, self.temperature)


def _jump(denoiser: AbstractDenoiser, x: Batch, t: Number, s: Number, cond: Cond) -> Batch:
    """Euler's step from t to s: for s = 0, x0."""
    predicted = denoiser(x, t, cond)
    return denoiser.schedule.alpha(s) * predicted.x0 + denoiser.schedule.sigma(s) * predicted.eps


def _spread(solver_state: Any, batch: int) -> Any:
    """Give the solver's single numbers a batch axis, which all that a sampler carries must have."""
    return jax.tree.map(
        lambda a: jnp.broadcast_to(a, (batch,)) if jnp.ndim(a) == 0 else a, solver_state
    )


def _gather(solver_state: Any, like: Any) -> Any:
    """Inverse of `_spread`; `like` says what were single numbers."""
    return jax.tree.map(lambda a, model: a[0] if model.ndim == 0 else a, solver_state, like)
