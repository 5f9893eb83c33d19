"""Adams-Bashforth methods for the probability-flow ODE dy/ds = eps, y = x/alpha, s = sigma/alpha."""

from abc import abstractmethod
from typing import TYPE_CHECKING, ClassVar, Literal

import equinox as eqx
import jax.numpy as jnp

from diffusion_eqx._typing import Batch
from diffusion_eqx.samplers.base import AbstractSampler, Bound
from diffusion_eqx.samplers.grid import AbstractGrid, KarrasGrid, LogSNRGrid
from diffusion_eqx.samplers.multistep import (
    History,
    Number,
    Order,
    by_order,
    falling_order,
    weights_for_moments,
)
from diffusion_eqx.samplers.state import State
from diffusion_eqx.schedules import NoiseLevel


class AbstractAdamsBashforth(AbstractSampler):
    """eps is extrapolated as a polynomial in some variable u(s), and integrated over the step.

        y' = y + ∫ sum_k eps_k·l_k(u(s)) ds

    with Lagrange's basis l_k at the newest `order` points. A method says what u is. Cost: one
    evaluation a step.
    """

    # A type checker takes an AbstractVar for an argument of __init__, a ClassVar not.
    if TYPE_CHECKING:
        order: ClassVar[int]
    else:
        order: eqx.AbstractVar[int]

    stochastic: ClassVar[bool] = False
    remembers: ClassVar[bool] = True

    @abstractmethod
    def place(self, log_ratio: Number) -> Number:
        """u where log s is greater by `log_ratio` than at the step's start, where u is 0."""

    @abstractmethod
    def moments(self, end: Number) -> list[Number]:
        """∫ u^i ds for i < `order` from 0 to u = `end`, in units of the s that the step begins at."""

    @abstractmethod
    def usable_order(self, count: Order, state: State, s: NoiseLevel) -> Order:
        """The order of a step to level `s` when `count` predictions are known."""

    def init(self, denoise: Bound, x: Batch, t: NoiseLevel, s: NoiseLevel) -> History:
        """Room for `order` predictions of eps."""
        return History.empty(x, self.order)

    def step(self, denoise: Bound, state: State, t: NoiseLevel, s: NoiseLevel) -> State:
        """One step: Euler's, and what each order adds to it.

        The weights of the predictions add up to the step in s, so what is added are differences of eps.
        """
        x0, eps = denoise(state.x, t)
        history = state.memory.push(eps, t.lam)
        nodes = [self.place(t.lam - lam) for lam in history.lams]
        moments = self.moments(self.place(t.lam - s.lam))
        unit = s.alpha * jnp.exp(-t.lam)
        _, *older = history.predictions
        euler = s.noised(x0, eps)
        results = [euler]
        for order in range(2, self.order + 1):
            _, *weights = weights_for_moments(nodes[:order], moments[:order])
            change = jnp.zeros_like(euler)
            for weight, earlier in zip(weights, older, strict=False):
                change += weight * (earlier - eps)
            results.append(euler + unit * change)
        return state.moved(by_order(self.usable_order(history.count, state, s), results), history)


class DEISSampler(AbstractAdamsBashforth):
    """DEIS with u = log s (Zhang & Chen 2023, section 3.2: rho-AB). Good from 5 steps.

    - `order`: 1, 2 or 3. The last step returns x0.
    """

    order: Literal[1, 2, 3] = eqx.field(static=True, default=3)
    grid: AbstractGrid = eqx.field(default=LogSNRGrid(), kw_only=True)

    reference: ClassVar[str] = "Zhang & Chen 2023"
    about: ClassVar[str] = "third-order extrapolation of eps in log sigma"
    use: ClassVar[str] = "from 5 steps"

    def place(self, log_ratio: Number) -> Number:
        """`log_ratio` itself."""
        return log_ratio

    def moments(self, end: Number) -> list[Number]:
        """∫ u^i e^u du, by parts."""
        moments = [jnp.expm1(end)]
        for i in range(1, self.order):
            moments.append(end**i * jnp.exp(end) - i * moments[-1])
        return moments

    def usable_order(self, count: Order, state: State, s: NoiseLevel) -> Order:
        """As `falling_order`."""
        return falling_order(self.order, count, state, s)


class LMSSampler(AbstractAdamsBashforth):
    """Linear multistep (k-diffusion's `lms`): u = s, in units of that at the step's start.

    For comparison: `DEISSampler` extrapolates in log s, in which eps is smoother.

    - `order`: 1 to 4.
    """

    order: Literal[1, 2, 3, 4] = eqx.field(static=True, default=4)
    grid: AbstractGrid = eqx.field(default=KarrasGrid(), kw_only=True)

    reference: ClassVar[str] = "k-diffusion"
    about: ClassVar[str] = "fourth-order extrapolation of eps in sigma"
    use: ClassVar[str] = "for comparison with older tools"

    def place(self, log_ratio: Number) -> Number:
        """e^log_ratio − 1."""
        return jnp.expm1(log_ratio)

    def moments(self, end: Number) -> list[Number]:
        """end^(i + 1)/(i + 1)."""
        return [end ** (i + 1) / (i + 1) for i in range(self.order)]

    def usable_order(self, count: Order, state: State, s: NoiseLevel) -> Order:
        """As many predictions as there are, to the end: s = 0 is at no infinite distance."""
        return jnp.minimum(count, self.order)
