"""Any adaptive solver of diffrax: each step of the sampler is one accepted step of the solver."""

from typing import Any, ClassVar

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array

from diffusion_eqx._typing import Batch, Cond, Real
from diffusion_eqx._values import real
from diffusion_eqx.denoiser import AbstractDenoiser, Level, Prediction
from diffusion_eqx.samplers.base import AbstractSampler, Bound, Walk
from diffusion_eqx.samplers.diffrax_terms import (
    Number,
    StepPath,
    flow_level,
    flow_place,
    flow_scale,
    flow_term,
    reverse_place,
    reverse_scale,
    reverse_terms,
    silent_terms,
)
from diffusion_eqx.samplers.grid import AbstractGrid, UniformGrid
from diffusion_eqx.samplers.sources import BrownianNoise, path_place
from diffusion_eqx.samplers.state import State
from diffusion_eqx.schedules import (
    GREATEST_LOG_SNR,
    LEAST_LOG_SNR,
    AbstractSchedule,
    NoiseLevel,
    over,
)

# Rejections in a row after which an example is given up.
_ATTEMPTS = 50
# The first step to try, and the longest allowed, as parts of the whole way. A step as long as the
# way itself passes over all that it should see, and its estimate of the error is of no use.
_FIRST_STEP = 0.01
_LONGEST_STEP = 0.1


class _Progress(eqx.Module):
    """Where each example is on the solver's clock, the next place to try, and what diffrax remembers."""

    # One for each example; for a single one, under `vmap`, just a number.
    place: Any
    next: Any
    solver_state: Any
    controller_state: Any


class DiffraxAdaptiveSampler(AbstractSampler):
    """The probability-flow ODE, or the reverse SDE, by an adaptive solver of diffrax (Song et al.
    2021, section 4.3).

    Each example has steps of its own, so that it does not depend on its batch. The number of steps
    is the most that an example may take. Those that arrive earlier wait. One that does not arrive
    comes out as not-a-number, and `sample` says so. The last move, below the first timestep,
    returns x0. There is no grid.

    - `solver`: one that estimates its error: `diffrax.Tsit5()`, `diffrax.Dopri5()`; for the SDE
      `diffrax.Heun()`.
    - `rtol`, `atol`: the tolerances of a step.
    - `path`: with one, the reverse SDE along that Brownian path is solved in place of the ODE. Its
      steps need to be far shorter for the same tolerance.

    Cost: the solver's stages for each attempt. No gradient flows through its loop, whose length is not
    known beforehand; `DiffraxODESampler` and `DiffraxSDESampler` have one.
    """

    solver: diffrax.AbstractAdaptiveSolver = diffrax.Tsit5()
    rtol: Real = real(1e-3)
    atol: Real = real(1e-3)
    path: BrownianNoise | None = None
    # Only a beginning in the middle asks for it.
    grid: AbstractGrid = eqx.field(default=UniformGrid(), kw_only=True)

    stochastic: ClassVar[bool] = False
    remembers: ClassVar[bool] = True
    evaluations: ClassVar[int | None] = None
    chooses_levels: ClassVar[bool] = True
    reference: ClassVar[str] = "Song et al. 2021, section 4.3"
    about: ClassVar[str] = (
        "the probability-flow ODE, adaptive; steps are the most that may be taken"
    )
    use: ClassVar[str] = (
        "an accuracy asked for rather than a cost; `adaptive:Tsit5`, `adaptive:Dopri5`, …"
    )

    def init(self, denoise: Bound, x: Batch, t: NoiseLevel, s: NoiseLevel) -> _Progress:
        """All examples where they begin, with a short first step to try."""
        end = self._end(denoise.schedule)
        places = jnp.broadcast_to(self._place(t.flat()), x.shape[:1])

        def one(x: Batch, begin: Number) -> _Progress:
            terms = silent_terms(x, stochastic=self.path is not None)
            following = begin + _FIRST_STEP * (end - begin)
            solver_state = self.solver.init(terms, begin, following, x, None)
            _, controller_state = self._controller(begin, end).init(
                terms, begin, end, x, following - begin, None, self.solver.func, self._order(terms)
            )
            return _Progress(begin, following, solver_state, controller_state)

        return jax.vmap(one)(x, places)

    def step(self, denoise: Bound, state: State, t: NoiseLevel, s: NoiseLevel) -> State:
        """One accepted step of each example that has not arrived yet; the levels are not used."""
        end = self._end(denoise.schedule)

        def accepted(x: Batch, key: Any, progress: _Progress, cond: Cond) -> Any:
            cond = jax.tree.map(lambda c: c[None], cond)
            single = Bound(_Single(denoise.denoiser), cond, denoise.skips)
            return self._accepted(single, x, key, progress)

        x, progress = jax.vmap(accepted)(state.x, state.keys, state.memory, denoise.cond)
        arrived = over((progress.place >= end) & (state.memory.place < end), x)
        first = denoise.schedule.at(1.0 / denoise.schedule.num_timesteps)
        x = jax.lax.cond(
            jnp.any(arrived),
            lambda: jnp.where(arrived, denoise(x, first).x0, x),
            lambda: x,
        )
        late = over(progress.place < end, x) & (state.column(state.left) == 1)
        return state.moved(jnp.where(late, jnp.nan, x), progress)

    def advance(self, denoise: Bound, walk: Walk, state: State) -> State:
        """One accepted step; the walk's levels are not looked up."""
        nowhere = denoise.schedule.at(1.0)
        return self.step(denoise, state, nowhere, nowhere)

    def _accepted(
        self, denoise: Bound, x: Batch, key: Any, progress: _Progress
    ) -> tuple[Batch, _Progress]:
        """An accepted step of a single example, without batch axis."""
        schedule = denoise.schedule
        begin, end = self._place(schedule.at(1.0)), self._end(schedule)
        terms = self._terms(denoise, key, x.shape)
        controller, order = self._controller(begin, end), self._order(terms)
        y = x / self._scale(schedule, progress.place)
        waiting = progress.place < end

        def unfinished(carry) -> Array:
            attempts, accepted, _, _ = carry
            return waiting & ~accepted & (attempts < _ATTEMPTS)

        def attempt(carry):
            attempts, _, y, progress = carry
            place, following = progress.place, jnp.minimum(progress.next, end)
            y_next, error, _, solver_state, _ = self.solver.step(
                terms, place, following, y, None, progress.solver_state, False
            )
            keep, next_place, next_next, _, controller_state, _ = controller.adapt_step_size(
                place, following, y, y_next, None, error, order, progress.controller_state
            )

            def kept(new: Any, old: Any) -> Any:
                return jax.tree.map(lambda n, o: jnp.where(keep, n, o), new, old)

            moved = _Progress(
                next_place, next_next, kept(solver_state, progress.solver_state), controller_state
            )
            return attempts + 1, keep, kept(y_next, y), moved

        carry = (jnp.asarray(0, jnp.int32), jnp.asarray(False), y, progress)
        _, _, y, moved = jax.lax.while_loop(unfinished, attempt, carry)
        return jnp.where(waiting, self._scale(schedule, moved.place) * y, x), moved

    def _order(self, terms: Any) -> Any:
        order = self.solver.error_order(terms)
        assert order is not None, "an adaptive solver knows the order of its error"
        return order

    def _controller(self, begin: Number, end: Number) -> diffrax.PIDController:
        longest = _LONGEST_STEP * (end - begin)
        return diffrax.PIDController(rtol=self.rtol, atol=self.atol, dtmax=longest)

    def _terms(self, denoise: Bound, key: Any, shape: tuple[int, ...]) -> Any:
        """The equation of a single example."""
        if self.path is None:
            return flow_term(denoise)
        path = self.path

        def increment(begin: Number, end: Number) -> Batch:
            # The path's clock runs over [0, 1]: its unit of variance is the whole of lambda's range.
            keys = key[None]
            moved = path.at(keys, path_place(end), shape) - path.at(keys, path_place(begin), shape)
            return (0.5 * (GREATEST_LOG_SNR - LEAST_LOG_SNR)) ** 0.5 * moved[0]

        return reverse_terms(denoise, StepPath(increment=increment, area=None), 1.0)

    def _place(self, level: NoiseLevel) -> Number:
        """The solver's clock at a level."""
        return flow_place(level) if self.path is None else reverse_place(level)

    def _end(self, schedule: AbstractSchedule) -> Number:
        """The solver's clock at the first timestep."""
        return self._place(schedule.at(1.0 / schedule.num_timesteps))

    def _scale(self, schedule: AbstractSchedule, place: Number) -> Number:
        """x over the solver's variable."""
        if self.path is None:
            return flow_scale(flow_level(schedule, place))
        return reverse_scale(schedule.at_log_snr(2.0 * place))


class _Single(AbstractDenoiser):
    """A denoiser of single examples, for use under `vmap`."""

    denoiser: AbstractDenoiser

    @property
    def schedule(self) -> AbstractSchedule:
        """That of the denoiser within."""
        return self.denoiser.schedule

    @property
    def null(self) -> Cond:
        """That of the denoiser within."""
        return self.denoiser.null

    def __call__(self, x: Batch, level: Level, cond: Cond = None) -> Prediction:
        """The prediction for one example."""
        predicted = self.denoiser(x[None], level, cond)
        return jax.tree.map(lambda a: a[0], predicted)
