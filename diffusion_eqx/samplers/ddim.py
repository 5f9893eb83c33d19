"""Denoising diffusion implicit models (Song, Meng & Ermon 2021)."""

from typing import ClassVar

import jax.numpy as jnp

from diffusion_eqx._typing import Cond, Real
from diffusion_eqx.denoiser import AbstractDenoiser
from diffusion_eqx.samplers.base import AbstractOneStepMethod, State
from diffusion_eqx.samplers.brownian import AbstractNoise, IndependentNoise
from diffusion_eqx.samplers.grid import AbstractGrid, Index, TrailingGrid


class DDIMSampler(AbstractOneStepMethod):
    """Moves along the straight line from the estimate of the noise to that of the clean example.

        x_s = alpha_s·x0 + sqrt(sigma_s² − v²)·eps + temperature·v·z,   z ~ N(0, I)
        v   = eta·sigma_s·sqrt(1 − SNR(t)/SNR(s))                      (Song et al. 2021, eqs. 12, 16)

    `eta = 0` is deterministic, a first-order solver of the probability-flow ODE; `eta = 1` is DDPM's
    ancestral sampling. Written in x/alpha and sigma/alpha these two are k-diffusion's Euler and Euler
    ancestral methods, so there are no classes of those names. Cost: one evaluation a step. A good default
    from 20 steps.
    """

    denoiser: AbstractDenoiser
    grid: AbstractGrid = TrailingGrid()
    eta: Real = 0.0
    temperature: Real = 1.0
    noise: AbstractNoise = IndependentNoise()

    renoises: ClassVar[bool] = True

    @property
    def deterministic(self) -> bool:
        """Whether eta is known to be 0 while tracing, so that no noise need be drawn."""
        return known_zero(self.eta)

    def step(self, state: State, index: Index, steps: Index, cond: Cond = None) -> State:
        """One step; the last one (s = 0) returns x0."""
        t, s = self.times(index, steps)
        schedule = self.denoiser.schedule
        predicted = self.denoiser(state.x, t, cond)
        x0, eps = predicted.x0, predicted.eps
        alpha_s, sigma_s = schedule.alpha(s), schedule.sigma(s)
        if self.deterministic:
            return State(alpha_s * x0 + sigma_s * eps, state.keys)
        fraction = -(self.eta**2) * jnp.expm1(schedule.log_snr(t) - schedule.log_snr(s))
        deterministic = sigma_s * jnp.sqrt(1.0 - fraction)
        v = self.temperature * sigma_s * jnp.sqrt(fraction)
        span = schedule.half_log_snr(t), schedule.half_log_snr(s)
        noise = self.noise(state.keys, index, span, x0.shape[1:])
        return State(alpha_s * x0 + deterministic * eps + v * noise, state.keys)


def known_zero(value: Real) -> bool:
    """Whether a number is known to be 0 while tracing."""
    return isinstance(value, int | float) and value == 0
