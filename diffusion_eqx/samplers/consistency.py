"""Multistep sampling of consistency models (Song et al. 2023)."""

from typing import ClassVar

from diffusion_eqx._typing import Real
from diffusion_eqx.samplers.base import AbstractSampler, Bound
from diffusion_eqx.samplers.state import State
from diffusion_eqx.samplers.temperature import temperature
from diffusion_eqx.schedules import NoiseLevel


class ConsistencySampler(AbstractSampler):
    """Predicts x0 and noises it afresh: x_s = alpha_s·x0 + temperature·sigma_s·z (algorithm 1).

    For networks that map every noisy example to the end of its trajectory. With an ordinary
    denoiser, whose x0 is a mean over many ends, samples are too smooth. Cost: one evaluation a
    step, 1 to 4 steps.

    - `temperature`: scale of the noise.
    """

    temperature: Real = temperature()

    reference: ClassVar[str] = "Song et al. 2023, algorithm 1"
    about: ClassVar[str] = "x0, noised afresh, again and again"
    use: ClassVar[str] = "consistency models only, 1 to 4 steps"

    def step(self, denoise: Bound, state: State, t: NoiseLevel, s: NoiseLevel) -> State:
        """One step; the last one returns x0."""
        x0, _ = denoise(state.x, t)
        return state.moved(s.noised(x0, self.temperature * self.noise(state, t, s)))
