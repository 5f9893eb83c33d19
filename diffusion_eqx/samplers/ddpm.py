"""Ancestral sampling of Ho, Jain & Abbeel (2020), between any two levels."""

from typing import ClassVar, Literal

import equinox as eqx
import jax.numpy as jnp

from diffusion_eqx._typing import Batch, Real
from diffusion_eqx.samplers.base import AbstractSampler, Bound
from diffusion_eqx.samplers.state import State
from diffusion_eqx.samplers.temperature import temperature
from diffusion_eqx.schedules import NoiseLevel


class DDPMSampler(AbstractSampler):
    """Draws x_s from q(x_s | x_t, x0), with the predicted x0 in place of the true one.

    With r = SNR(t)/SNR(s) (Kingma et al. 2021, eq. 32 ff.; Ho et al. 2020, eqs. 6-7, are the case
    of neighbouring timesteps):

        mean      = (alpha_t/alpha_s)·(sigma_s/sigma_t)²·x_t + alpha_s·(1 − r)·x0
        variance  = sigma_s²·(1 − r)   (`small`: that of the posterior)
                  = sigma_t²·(1 − r)   (`large`: that of the forward step, beta_t)

    - `temperature`: scale of the noise.
    - `variance`: `small`, `large`, `learned` or `auto`. `learned` takes a geometric mean of the
      two, weighed by the network's `variance_fraction` (Nichol & Dhariwal 2021, eq. 15). `auto` is
      `learned` where the network gives that, else `small`.

    Any number of steps is allowed; all T of them is the original. Cost: one evaluation a step.
    """

    temperature: Real = temperature()
    variance: Literal["small", "large", "learned", "auto"] = eqx.field(static=True, default="auto")

    reference: ClassVar[str] = "Ho et al. 2020"
    about: ClassVar[str] = "ancestral sampling, any number of steps"
    use: ClassVar[str] = "the original; with 250 steps and more, or with a learnt variance"

    def step(self, denoise: Bound, state: State, t: NoiseLevel, s: NoiseLevel) -> State:
        """One ancestral step; the last one returns x0 without noise.

        **Raises:** `ValueError` if the variance is to be `learned` and the network learnt none.
        """
        predicted = denoise(state.x, t)
        one_minus_r = -jnp.expm1(t.log_snr - s.log_snr)
        mean = posterior_mean(state.x, predicted.x0, t, s)
        fraction = predicted.variance_fraction
        if self.variance == "learned" or (self.variance == "auto" and fraction is not None):
            if fraction is None:
                raise ValueError(
                    "variance='learned' needs a denoiser with learned_variance=True; this one"
                    " gives none: choose "
                    "'small' or 'large'"
                )
            # A power of 0 has no slope, and the last step adds no noise anyway.
            low = jnp.where(s.clean, 1.0, s.sigma)
            scale = low ** (1.0 - fraction) * t.sigma**fraction
        else:
            scale = t.sigma if self.variance == "large" else s.sigma
        std = jnp.where(s.clean, 0.0, self.temperature * scale * jnp.sqrt(one_minus_r))
        return state.moved(mean + std * self.noise(state, t, s))


def posterior_mean(x: Batch, x0: Batch, t: NoiseLevel, s: NoiseLevel) -> Batch:
    """The mean of q(x_s | x_t, x0), for examples `x` of level t and a cleaner level s (Kingma et
    al. 2021, eq. 33).

    (alpha_t/alpha_s)·(sigma_s/sigma_t)²·x + alpha_s·(1 − SNR(t)/SNR(s))·x0
    """
    t, s = t.over(x), s.over(x)
    kept = (t.alpha / s.alpha) * (s.sigma / t.sigma) ** 2
    return kept * x - s.alpha * jnp.expm1(t.log_snr - s.log_snr) * x0
