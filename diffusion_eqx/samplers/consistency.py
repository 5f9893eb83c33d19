"""Multistep sampling of consistency models (Song et al. 2023)."""

from typing import ClassVar

from diffusion_eqx._typing import Cond, Real
from diffusion_eqx.denoiser import AbstractDenoiser
from diffusion_eqx.samplers.base import AbstractOneStepMethod, State
from diffusion_eqx.samplers.brownian import AbstractNoise, IndependentNoise
from diffusion_eqx.samplers.grid import AbstractGrid, Index, TrailingGrid


class ConsistencySampler(AbstractOneStepMethod):
    """Predicts x0 and noises it afresh: x_s = alpha_s·x0 + temperature·sigma_s·z (algorithm 1).

    For networks that map every noisy example to the end of its trajectory. With an ordinary denoiser,
    whose x0 is a mean over many ends, samples are too smooth. Cost: one evaluation a step, 1 to 4 steps.
    """

    denoiser: AbstractDenoiser
    grid: AbstractGrid = TrailingGrid()
    temperature: Real = 1.0
    noise: AbstractNoise = IndependentNoise()

    renoises: ClassVar[bool] = False

    def step(self, state: State, index: Index, steps: Index, cond: Cond = None) -> State:
        """One step; the last one (s = 0) returns x0."""
        t, s = self.times(index, steps)
        schedule = self.denoiser.schedule
        x0 = self.denoiser(state.x, t, cond).x0
        span = schedule.half_log_snr(t), schedule.half_log_snr(s)
        noise = self.noise(state.keys, index, span, x0.shape[1:])
        return State(
            schedule.alpha(s) * x0 + self.temperature * schedule.sigma(s) * noise, state.keys
        )
