"""Any adaptive solver of diffrax: each step of the sampler is one accepted step of the solver."""

from typing import Any, ClassVar

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array

from diffusion_eqx._typing import Batch, Cond
from diffusion_eqx.denoiser import AbstractDenoiser
from diffusion_eqx.samplers.base import AbstractMethod, State
from diffusion_eqx.samplers.brownian import BrownianNoise, path_place
from diffusion_eqx.samplers.diffrax_terms import (
    Number,
    Silent,
    StepPath,
    flow_place,
    flow_scale,
    flow_term,
    flow_time,
    reverse_place,
    reverse_scale,
    reverse_terms,
)
from diffusion_eqx.samplers.grid import AbstractGrid, Index, UniformGrid
from diffusion_eqx.schedules.base import GREATEST_LAMBDA, LEAST_LAMBDA

# Rejections in a row after which an example is given up.
_ATTEMPTS = 50
# The first step to try, as a part of the whole way.
_FIRST_STEP = 0.01


class _Progress(eqx.Module):
    """Where each example is on the solver's clock, the next place to try, and what diffrax remembers."""

    # One for each example; for a single one, under `vmap`, just a number.
    place: Any
    next: Any
    solver_state: Any
    controller_state: Any


class DiffraxAdaptiveSampler(AbstractMethod):
    """The probability-flow ODE, or the reverse SDE, by an adaptive solver of diffrax.

    `solver` must estimate its error: `diffrax.Tsit5()`, `diffrax.Dopri5()`, for the SDE `diffrax.Heun()`.
    Each example has steps of its own, so that it does not depend on its batch. `rtol` and `atol` are the
    tolerances of a step. With `path`, the reverse SDE along that Brownian path is solved in place of the
    ODE.

    The number of steps is the most that an example may take; those that arrive earlier wait, and one that
    does not arrive comes out as not-a-number, which no picture writer accepts: allow more steps then. The
    last move, below the first timestep, returns x0. There is no grid. Cost: the solver's stages for each
    attempt.
    """

    denoiser: AbstractDenoiser
    solver: diffrax.AbstractAdaptiveSolver = diffrax.Tsit5()
    rtol: float = eqx.field(static=True, default=1e-3)
    atol: float = eqx.field(static=True, default=1e-3)
    path: BrownianNoise | None = None
    # Only `resume` in the middle would ask for it.
    grid: AbstractGrid = UniformGrid()

    renoises: ClassVar[bool] = False

    def memory(self, x_t: Batch, index: Index, steps: Index) -> _Progress:
        """All examples at the beginning, with a short first step to try."""
        schedule = self.denoiser.schedule
        begin = self._place(self.grid(schedule, index, steps))
        end = self._end()
        following = begin + _FIRST_STEP * (end - begin)

        def one(x: Batch) -> tuple[Any, Any]:
            terms = self._terms(Silent(schedule), None, None, x.shape)
            order = self.solver.error_order(terms)
            assert order is not None, "an adaptive solver knows the order of its error"
            solver_state = self.solver.init(terms, begin, following, x, None)
            _, controller_state = self._controller().init(
                terms, begin, end, x, following - begin, None, self.solver.func, order
            )
            return solver_state, controller_state

        solver_state, controller_state = jax.vmap(one)(x_t)
        batch = (len(x_t),)
        return _Progress(
            jnp.broadcast_to(begin, batch),
            jnp.broadcast_to(following, batch),
            solver_state,
            jax.tree.map(
                lambda a: jnp.broadcast_to(a, batch) if jnp.ndim(a) == 0 else a, controller_state
            ),
        )

    def step(self, state: State, index: Index, steps: Index, cond: Cond = None) -> State:
        """One accepted step of each example that has not arrived yet."""
        end = self._end()
        x, progress = jax.vmap(self._accepted)(state.x, state.keys, state.memory, cond)
        arrived = (progress.place >= end) & (state.memory.place < end)

        def jump() -> Batch:
            t = jnp.asarray(1.0 / self.denoiser.schedule.num_timesteps)
            return self.denoiser(x, t, cond).x0

        def chosen(mask: Array, this: Batch, other: Batch) -> Batch:
            return jnp.where(mask.reshape(mask.shape + (1,) * (x.ndim - 1)), this, other)

        x = jax.lax.cond(jnp.any(arrived), lambda: chosen(arrived, jump(), x), lambda: x)
        late = (jnp.asarray(index) == steps - 1) & (progress.place < end)
        return State(chosen(late, jnp.full_like(x, jnp.nan), x), state.keys, progress)

    def _accepted(
        self, x: Batch, key: Any, progress: _Progress, cond: Cond
    ) -> tuple[Batch, _Progress]:
        """An accepted step of a single example, without batch axis."""
        end = self._end()
        cond = jax.tree.map(lambda c: c[None], cond)
        terms = self._terms(_Single(self.denoiser), key, cond, x.shape)
        order = self.solver.error_order(terms)
        assert order is not None, "an adaptive solver knows the order of its error"
        y = x / self._scale(progress.place)
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
            keep, next_place, next_next, _, controller_state, _ = (
                self._controller().adapt_step_size(
                    place,
                    following,
                    y,
                    y_next,
                    None,
                    error,
                    order,
                    progress.controller_state,
                )
            )

            def kept(new: Any, old: Any) -> Any:
                return jax.tree.map(lambda n, o: jnp.where(keep, n, o), new, old)

            moved = _Progress(
                next_place,
                next_next,
                kept(solver_state, progress.solver_state),
                controller_state,
            )
            return attempts + 1, keep, kept(y_next, y), moved

        carry = (jnp.asarray(0), jnp.asarray(False), y, progress)
        _, _, y, moved = jax.lax.while_loop(unfinished, attempt, carry)
        return jnp.where(waiting, self._scale(moved.place) * y, x), moved

    def _controller(self) -> diffrax.PIDController:
        return diffrax.PIDController(rtol=self.rtol, atol=self.atol)

    def _terms(
        self, denoiser: AbstractDenoiser, key: Any, cond: Cond, shape: tuple[int, ...]
    ) -> Any:
        """The equation of a single example; without a key, of the right shape only."""
        if self.path is None:
            return flow_term(denoiser, cond)
        path = self.path

        def increment(begin: Number, end: Number) -> Batch:
            if key is None:
                return jnp.zeros(shape)
            # The path's clock runs over [0, 1]: its unit of variance is the whole of lambda's range.
            keys = key[None]
            moved = path.at(keys, path_place(end), shape) - path.at(keys, path_place(begin), shape)
            return jnp.sqrt(GREATEST_LAMBDA - LEAST_LAMBDA) * moved[0]

        return reverse_terms(denoiser, cond, StepPath(increment=increment, area=None), 1.0)

    def _place(self, t: Number) -> Number:
        """The solver's clock at time t."""
        schedule = self.denoiser.schedule
        return flow_place(schedule, t) if self.path is None else reverse_place(schedule, t)

    def _end(self) -> Number:
        """The solver's clock at the first timestep."""
        return self._place(jnp.asarray(1.0 / self.denoiser.schedule.num_timesteps))

    def _scale(self, place: Number) -> Number:
        """x_t over the solver's variable."""
        schedule = self.denoiser.schedule
        if self.path is None:
            return flow_scale(schedule, flow_time(schedule, place))
        return reverse_scale(schedule, schedule.time_of(place))


class _Single(AbstractDenoiser):
    """A denoiser of single examples, for use under `vmap`."""

    denoiser: AbstractDenoiser

    @property
    def schedule(self):
        """That of the wrapped denoiser."""
        return self.denoiser.schedule

    @property
    def exact_pair(self) -> bool:
        """That of the wrapped denoiser."""
        return self.denoiser.exact_pair

    def __call__(self, x_t, t, cond=None, *, key=None):
        """The prediction for one example."""
        predicted = self.denoiser(x_t[None], t, cond, key=key)
        return jax.tree.map(lambda a: a[0], predicted)
