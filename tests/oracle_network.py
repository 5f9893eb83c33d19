"""A network of known answer: what each parameterization should predict for an exact denoiser."""

from collections.abc import Callable

import equinox as eqx

from diffusion_eqx.denoiser import AbstractDenoiser, Denoiser
from diffusion_eqx.parameterizations import AbstractParameterization, EDMPrediction
from diffusion_eqx.schedules import over


class OracleNetwork(eqx.Module):
    """Predicts exactly, but for `disturbance` times the output of `other`, if there is one.

    It finds the level again from what a network is told of it, and the noisy example from its scaled input.
    """

    parameterization: AbstractParameterization
    oracle: AbstractDenoiser
    other: Callable | None = None
    disturbance: float = eqx.field(static=True, default=0.1)

    def __call__(self, x, c_noise, cond, *, key):
        schedule = self.oracle.schedule
        if isinstance(self.parameterization, EDMPrediction):
            level = schedule.at_log_snr(-8.0 * c_noise)
        else:
            level = schedule.at((c_noise + 1.0) / schedule.num_timesteps)
        c = self.parameterization.coefficients(schedule, level)
        noisy = x / over(c.c_in, x)
        shell = Denoiser(lambda *_, key: None, schedule, self.parameterization)
        output = shell.target(noisy, level, self.oracle(noisy, level, cond).x0)
        if self.other is None:
            return output
        return output + self.disturbance * self.other(x, c_noise, cond, key=key)
