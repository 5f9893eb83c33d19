"""Ancestral sampling of Ho, Jain & Abbeel (2020), for any pair of times."""

from typing import ClassVar, Literal

import equinox as eqx
import jax.numpy as jnp

from diffusion_eqx._typing import Cond, Real
from diffusion_eqx.denoiser import AbstractDenoiser
from diffusion_eqx.samplers.base import AbstractOneStepMethod, State
from diffusion_eqx.samplers.brownian import AbstractNoise, IndependentNoise
from diffusion_eqx.samplers.grid import AbstractGrid, Index, TrailingGrid


class DDPMSampler(AbstractOneStepMethod):
    """Draws x_s from q(x_s | x_t, x0), with the predicted x0 in place of the true one.

    With r = SNR(t)/SNR(s) (Kingma et al. 2021, eq. 32 ff.; Ho et al. 2020, eqs. 6-7, are the case of
    neighbouring timesteps):

        mean      = (alpha_t/alpha_s)·(sigma_s/sigma_t)²·x_t + alpha_s·(1 − r)·x0
        variance  = sigma_s²·(1 − r)   (`small`: that of the posterior)
                  = sigma_t²·(1 − r)   (`large`: that of the forward step, beta_t)

    `learned` takes a geometric mean of the two, weighed by the network's `variance_fraction` (Nichol &
    Dhariwal 2021, eq. 15); `auto` is `learned` where the network gives that, else `small`. Any number
    of steps is allowed; all T of them is the original. Cost: one evaluation a step.
    """

    denoiser: AbstractDenoiser
    grid: AbstractGrid = TrailingGrid()
    temperature: Real = 1.0
    noise: AbstractNoise = IndependentNoise()
    variance: Literal["small", "large", "learned", "auto"] = eqx.field(static=True, default="small")

    renoises: ClassVar[bool] = False

    def step(self, state: State, index: Index, steps: Index, cond: Cond = None) -> State:
        """One ancestral step; the last one (s = 0) returns x0 without noise.

        **Raises:** `ValueError` if the variance is to be `learned` and the network learnt none.
        """
        t, s = self.times(index, steps)
        schedule = self.denoiser.schedule
        predicted = self.denoiser(state.x, t, cond)
        alpha_t, sigma_t = schedule.alpha(t), schedule.sigma(t)
        alpha_s, sigma_s = schedule.alpha(s), schedule.sigma(s)
        one_minus_r = -jnp.expm1(schedule.log_snr(t) - schedule.log_snr(s))
        mean = (alpha_t / alpha_s) * (sigma_s / sigma_t) ** 2 * state.x
        mean += alpha_s * one_minus_r * predicted.x0
        fraction = predicted.variance_fraction
        if self.variance == "learned" or (self.variance == "auto" and fraction is not None):
            if fraction is None:
                raise ValueError(
                    "variance='learned' needs a denoiser with learned_variance=True; this one gives "
                    "none: choose 'small' or 'large'"
                )
            scale = sigma_s ** (1.0 - fraction) * sigma_t**fraction
        else:
            scale = sigma_t if self.variance == "large" else sigma_s
        std = jnp.where(s > 0, self.temperature * scale * jnp.sqrt(one_minus_r), 0.0)
        span = schedule.half_log_snr(t), schedule.half_log_snr(s)
        return State(mean + std * self.noise(state.keys, index, span, mean.shape[1:]), state.keys)
