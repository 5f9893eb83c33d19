"""Predictor-corrector sampling: ancestral steps, each corrected by Langevin dynamics (Song et al. 2021)."""

from typing import ClassVar

import jax.numpy as jnp
from jaxtyping import Array

from diffusion_eqx._typing import Real
from diffusion_eqx._values import number
from diffusion_eqx.samplers.base import AbstractSampler, Bound, unless_clean
from diffusion_eqx.samplers.ddim import DDIMSampler
from diffusion_eqx.samplers.state import State
from diffusion_eqx.samplers.temperature import temperature
from diffusion_eqx.schedules import NoiseLevel


class PredictorCorrectorSampler(AbstractSampler):
    """An ancestral step, then one of Langevin dynamics at the new level (Song et al. 2021, algorithms 4-5).

        x ← x + e·score + temperature·sqrt(2·e)·z,   e = 2·(snr·sigma)²

    This is their e = 2·(snr·|z|/|score|)² with the norms' expectations, sqrt(d) and sqrt(d)/sigma,
    in place of the norms, which are those of a batch there and would bias examples of few
    dimensions.

    - `snr`: how far the corrector moves: about 0.16.
    - `temperature`: scale of the noise of both.

    Cost: two evaluations a step, one in the last.
    """

    snr: Real = number(0.16, minimum=0.0, maximum=1.0, about="how far the corrector moves")
    temperature: Real = temperature()

    evaluations: ClassVar[int | None] = 2
    reference: ClassVar[str] = "Song et al. 2021, algorithms 4 and 5"
    about: ClassVar[str] = "an ancestral step and a Langevin step in turn"
    use: ClassVar[str] = "score models, hundreds of steps"

    def step(self, denoise: Bound, state: State, t: NoiseLevel, s: NoiseLevel) -> State:
        """One step; the last one returns x0, without correction."""
        ancestral = DDIMSampler(1.0, self.temperature, grid=self.grid, noise=self.noise)
        predicted = ancestral.step(denoise, state, t, s)

        def corrected(level: NoiseLevel) -> Array:
            score = -denoise(predicted.x, level).eps / level.sigma
            length = 2.0 * (self.snr * level.sigma) ** 2
            noise = self.temperature * jnp.sqrt(2.0 * length) * state.second_draw()
            return predicted.x + length * score + noise

        return predicted.moved_to(unless_clean(s, t, corrected, predicted.x))
