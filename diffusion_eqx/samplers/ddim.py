"""Denoising diffusion implicit models (Song, Meng & Ermon 2021)."""

from typing import ClassVar

import jax.numpy as jnp
from jaxtyping import Array

from diffusion_eqx._typing import Real
from diffusion_eqx._values import number
from diffusion_eqx.samplers.base import AbstractSampler, Bound
from diffusion_eqx.samplers.state import State
from diffusion_eqx.samplers.temperature import temperature
from diffusion_eqx.schedules import NoiseLevel, safe_sqrt


class DDIMSampler(AbstractSampler):
    """Moves along the straight line from the estimate of the noise to that of the clean example.

        x_s = alpha_s·x0 + sigma_s·(sqrt(1 − v²)·eps + temperature·v·z),   z ~ N(0, I)
        v   = eta·sqrt(1 − SNR(t)/SNR(s))                                (Song et al. 2021, eqs. 12, 16)

    - `eta`: 0 is deterministic, a first-order solver of the probability-flow ODE; 1 is DDPM's
      ancestral sampling.
    - `temperature`: scale of the noise z.

    Written in x/alpha and sigma/alpha these two are the Euler and Euler ancestral methods of
    k-diffusion, so there are no classes of those names. Cost: one evaluation a step. A good default
    from 20 steps.
    """

    eta: Real = number(
        0.0,
        neutral=0.0,
        minimum=0.0,
        maximum=1.0,
        about="share of fresh noise in each step; 0 is deterministic",
    )
    temperature: Real = temperature()

    renoises: ClassVar[bool] = True
    reference: ClassVar[str] = "Song, Meng & Ermon 2021"
    about: ClassVar[str] = "first order; eta from deterministic (0) to ancestral (1)"
    use: ClassVar[str] = "the default from 20 steps, for inversion and editing"

    def step(self, denoise: Bound, state: State, t: NoiseLevel, s: NoiseLevel) -> State:
        """One step; the last one returns x0."""
        x0, eps = denoise(state.x, t)

        def stochastic() -> Array:
            v = self.eta * jnp.sqrt(-jnp.expm1(t.log_snr - s.log_snr))
            noise = self.temperature * v * self.noise(state, t, s)
            return s.noised(x0, safe_sqrt(1.0 - v**2) * eps + noise)

        return state.moved(
            denoise.unless_neutral(self.eta, 0.0, stochastic, lambda: s.noised(x0, eps))
        )
