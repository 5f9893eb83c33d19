"""Adams-Bashforth methods for the probability-flow ODE dy/ds = eps, y = x/alpha, s = sigma/alpha."""

from abc import abstractmethod
from typing import TYPE_CHECKING, ClassVar, Literal

import equinox as eqx
import jax.numpy as jnp

from diffusion_eqx._typing import Batch, Cond
from diffusion_eqx.denoiser import AbstractDenoiser
from diffusion_eqx.samplers.base import AbstractMethod, State
from diffusion_eqx.samplers.grid import AbstractGrid, Index, KarrasGrid, LogSNRGrid
from diffusion_eqx.samplers.multistep import (
    History,
    Number,
    Order,
    by_order,
    falling_order,
    lambdas,
    weights_for_moments,
)


class AbstractAdamsBashforth(AbstractMethod):
    """eps is extrapolated as a polynomial in some variable u(s), and integrated over the step.

        y' = y + ∫ sum_k eps_k·l_k(u(s)) ds

    with Lagrange's basis l_k at the newest `order` points. A method says what u is. Cost: one evaluation a
    step.
    """

    # A type checker takes an AbstractVar for an argument of __init__, a ClassVar not.
    if TYPE_CHECKING:
        order: ClassVar[int]
    else:
        order: eqx.AbstractVar[int]

    renoises: ClassVar[bool] = False

    @abstractmethod
    def place(self, log_ratio: Number) -> Number:
        """u where log s is greater by `log_ratio` than at the step's start, where u is 0."""

    @abstractmethod
    def moments(self, end: Number) -> list[Number]:
        """∫ u^i ds for i < `order` from 0 to u = `end`, in units of the s that the step begins at."""

    @abstractmethod
    def usable_order(self, length: Order, index: Index, steps: Index, s: Number) -> Order:
        """The order of step `index`, to time `s`, when `length` predictions are known."""

    def memory(self, x_t: Batch, index: Index, steps: Index) -> History:
        """Room for `order` predictions of eps."""
        return History.empty(x_t, self.order)

    def step(self, state: State, index: Index, steps: Index, cond: Cond = None) -> State:
        """One step: Euler's, and what each order adds to it.

        The weights of the predictions add up to the step in s, so what is added are differences of eps.
        """
        t, s = self.times(index, steps)
        schedule = self.denoiser.schedule
        predicted = self.denoiser(state.x, t, cond)
        history = state.memory.push(predicted.eps)
        lambda_t, *earlier = lambdas(self.grid, schedule, index, steps, self.order - 1)
        nodes = [self.place(lambda_t - node) for node in (lambda_t, *earlier)]
        moments = self.moments(self.place(lambda_t - schedule.half_log_snr(s)))
        alpha_s, unit = schedule.alpha(s), jnp.exp(-lambda_t)
        newest, *older = history.predictions
        euler = alpha_s * predicted.x0 + schedule.sigma(s) * predicted.eps
        results = [euler]
        for order in range(2, self.order + 1):
            _, *weights = weights_for_moments(nodes[:order], moments[:order])
            change = jnp.zeros_like(euler)
            for weight, eps in zip(weights, older, strict=False):
                change += weight * (eps - newest)
            results.append(euler + alpha_s * unit * change)
        chosen = self.usable_order(history.length, index, steps, s)
        return State(by_order(chosen, results), state.keys, history)


class DEISSampler(AbstractAdamsBashforth):
    """DEIS with u = log s (Zhang & Chen 2023, section 3.2: rho-AB). Good from 5 steps.

    Its last step (s = 0) returns x0.
    """

    denoiser: AbstractDenoiser
    grid: AbstractGrid = LogSNRGrid()
    order: Literal[1, 2, 3] = eqx.field(static=True, default=3)

    def place(self, log_ratio: Number) -> Number:
        """`log_ratio` itself."""
        return log_ratio

    def moments(self, end: Number) -> list[Number]:
        """∫ u^i e^u du, by parts."""
        moments = [jnp.expm1(end)]
        for i in range(1, self.order):
            moments.append(end**i * jnp.exp(end) - i * moments[-1])
        return moments

    def usable_order(self, length: Order, index: Index, steps: Index, s: Number) -> Order:
        """As `falling_order`."""
        return falling_order(self.order, length, index, steps, s)


class LMSSampler(AbstractAdamsBashforth):
    """Linear multistep (k-diffusion's `lms`): u = s, in units of that at the step's start.

    For comparison: `DEISSampler` extrapolates in log s, in which eps is smoother.
    """

    denoiser: AbstractDenoiser
    grid: AbstractGrid = KarrasGrid()
    order: Literal[1, 2, 3, 4] = eqx.field(static=True, default=4)

    def place(self, log_ratio: Number) -> Number:
        """e^log_ratio − 1."""
        return jnp.expm1(log_ratio)

    def moments(self, end: Number) -> list[Number]:
        """end^(i + 1)/(i + 1)."""
        return [end ** (i + 1) / (i + 1) for i in range(self.order)]

    def usable_order(self, length: Order, index: Index, steps: Index, s: Number) -> Order:
        """As many predictions as there are, to the end: s = 0 is at no infinite distance."""
        return jnp.minimum(length, self.order)
