"""Predictor-corrector sampling: ancestral steps, each corrected by Langevin dynamics (Song et al. 2021)."""

from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp

from diffusion_eqx._typing import Batch, BatchKeys, Cond, Real
from diffusion_eqx.denoiser import AbstractDenoiser
from diffusion_eqx.samplers.base import AbstractOneStepMethod, State
from diffusion_eqx.samplers.brownian import AbstractNoise, IndependentNoise
from diffusion_eqx.samplers.ddim import DDIMSampler
from diffusion_eqx.samplers.grid import AbstractGrid, Index, TrailingGrid
from diffusion_eqx.samplers.noise import draw


class PredictorCorrectorSampler(AbstractOneStepMethod):
    """An ancestral step, then one of Langevin dynamics at the new time (Song et al. 2021, algorithms 4-5).

        x ← x + e·score + temperature·sqrt(2·e)·z,   e = 2·(snr·sigma)²

    This is their e = 2·(snr·|z|/|score|)² with the norms' expectations, sqrt(d) and sqrt(d)/sigma, in place
    of the norms, which are those of a batch there and would bias examples of few dimensions. `snr` sets
    how far the corrector moves: about 0.16. Cost: two evaluations a step, one in the last.
    """

    denoiser: AbstractDenoiser
    grid: AbstractGrid = TrailingGrid()
    snr: Real = 0.16
    temperature: Real = 1.0
    noise: AbstractNoise = IndependentNoise()

    renoises: ClassVar[bool] = False

    def step(self, state: State, index: Index, steps: Index, cond: Cond = None) -> State:
        """One step; the last one (s = 0) returns x0, without correction."""
        _, s = self.times(index, steps)
        schedule = self.denoiser.schedule
        ancestral = DDIMSampler(self.denoiser, self.grid, 1.0, self.temperature, self.noise)
        predicted = ancestral.step(state, index, steps, cond)

        def correct() -> jax.Array:
            sigma = schedule.sigma(s)
            score = -self.denoiser(predicted.x, s, cond).eps / sigma
            length = 2.0 * (self.snr * sigma) ** 2
            noise = self.temperature * jnp.sqrt(2.0 * length)
            return predicted.x + length * score + noise * _second_draw(state.keys, index, state.x)

        return eqx.tree_at(
            lambda p: p.x, predicted, jax.lax.cond(s > 0.0, correct, lambda: predicted.x)
        )


def _second_draw(keys: BatchKeys, index: Index, like: Batch) -> Batch:
    """Noise of the same step, independent of the predictor's."""
    own = jax.vmap(lambda key: jax.random.fold_in(key, index + 1))(keys)
    return draw(own, 1, like.shape[1:])
