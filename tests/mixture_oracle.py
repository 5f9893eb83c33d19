"""The mixture of `diffusion_eqx.testing`, for tests that compare distributions."""

import numpy as np
from scipy import stats

from diffusion_eqx.testing import exact_flow


def flow_from_noise(schedule, noise) -> np.ndarray:
    """Where samples that begin at sigma(1)·noise should end."""
    level = schedule.at(1.0)
    s = float(level.sigma / level.alpha)
    return exact_flow(np.asarray(noise) * s, s)


def energy_distance(x: np.ndarray, y: np.ndarray) -> float:
    """Mean energy distance (Székely & Rizzo 2013) of the projections of points in the plane on
    eight directions.
    """
    angles = np.pi * np.arange(8) / 8
    directions = np.stack([np.cos(angles), np.sin(angles)])
    pairs = zip((np.asarray(x) @ directions).T, (np.asarray(y) @ directions).T, strict=True)
    return float(np.mean([stats.energy_distance(a, b) for a, b in pairs]))
