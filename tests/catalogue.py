"""Every schedule, parameterization, grid, sampler and guidance, for tests over all of them."""

import numpy as np

from diffusion_eqx.parameterizations import (
    EDMPrediction,
    EpsilonPrediction,
    ScorePrediction,
    VelocityPrediction,
    VPrediction,
    X0Prediction,
)
from diffusion_eqx.samplers import GRIDS, SAMPLERS, GivenGrid, KarrasGrid, LogSNRGrid, find_sampler
from diffusion_eqx.schedules import (
    DiscreteSchedule,
    EDMSchedule,
    FlowSchedule,
    VESchedule,
    VPSchedule,
    cosine_betas,
    linear_betas,
    rescale_zero_terminal_snr,
    scaled_linear_betas,
    sigmoid_betas,
)

BETAS = {
    "linear": linear_betas(1000, 1e-4, 0.02),
    "scaled_linear": scaled_linear_betas(1000, 8.5e-4, 0.012),
    "cosine": cosine_betas(1000),
    "sigmoid": sigmoid_betas(1000, 1e-4, 0.02),
    "zero_snr": rescale_zero_terminal_snr(linear_betas(1000, 1e-4, 0.02)),
    "zero_snr_cosine": rescale_zero_terminal_snr(cosine_betas(1000)),
}


def make_schedules() -> dict:
    """Every schedule, in the precision that jax is set to."""
    return {
        **{name: DiscreteSchedule(betas) for name, betas in BETAS.items()},
        "vp": VPSchedule(),
        "ve": VESchedule(),
        "edm": EDMSchedule(),
        "flow": FlowSchedule(),
    }


SCHEDULES = make_schedules()
PARAMETERIZATIONS = {
    "epsilon": EpsilonPrediction(),
    "x0": X0Prediction(),
    "v": VPrediction(),
    "score": ScorePrediction(2.5),
    "score-undivided": ScorePrediction(divided_by_sigma=False),
    "velocity": VelocityPrediction(),
    "edm": EDMPrediction(),
}
# The catalogue's, and some that begin elsewhere than at t = 1.
ALL_GRIDS = {
    **{name: grid for name, grid in GRIDS.items() if name != "exponential"},
    "karras-from-5": KarrasGrid(sigma_max=5.0, sigma_min=0.02),
    "logsnr-from-5": LogSNRGrid(sigma_max=5.0, sigma_min=0.02),
    "given": GivenGrid(tuple(np.linspace(0.9, 0.0, 65) ** 1.2)),
}
# Those with a fixed number of steps, and those of diffrax.
DIFFRAX = ("diffrax:Heun", "diffrax:Tsit5", "diffrax:Dopri5", "sde:Euler", "sde:Heun", "sde:ShARK")
ALL_SAMPLERS = {**SAMPLERS, **{name: find_sampler(name) for name in DIFFRAX}}
ADAPTIVE = {name: find_sampler(name) for name in ("adaptive:Tsit5", "adaptive-sde:Heun")}
