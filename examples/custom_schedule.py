"""A noise schedule of your own in a few lines, under three samplers.

A schedule says alpha(t) and sigma(t); everything else follows from them. Here the signal decays slowly at
first and ever faster later. The data are a mixture of Gaussians, whose denoiser is known exactly, so the
samples can be judged. The script prints their distance from true samples, beside the distance of true
samples from each other. It writes custom_schedule.png and results.json into the folder `--out`.
"""

import dataclasses
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib
import numpy as np
import tyro
from scipy import stats

import diffusion_eqx as dx


class QuadraticSchedule(dx.schedules.AbstractSchedule):
    """alpha = exp(−rate·t²) and sigma = sqrt(1 − alpha²)."""

    rate: float = 5.0

    def alpha(self, t):
        """exp(−rate·t²): the rate at which the signal decays grows linearly with time."""
        return jnp.exp(-self.rate * t**2)

    def sigma(self, t):
        """sqrt(1 − alpha²), without the cancellation of that difference."""
        return jnp.sqrt(-jnp.expm1(-2.0 * self.rate * t**2))


WEIGHTS = np.array([0.4, 0.35, 0.25])
MEANS = np.array([[0.7, 0.5], [-0.7, 0.4], [0.0, -0.7]])
STDS = np.array([0.15, 0.2, 0.1])
SAMPLERS = {"ddpm": 200, "unipc": 12, "sde:Heun": 200}


@dataclasses.dataclass(frozen=True)
class Options:
    """Sample a known mixture under a schedule of one's own."""

    out: Path = Path("custom_schedule")
    """Folder for the picture and the figures."""
    samples: int = 20_000
    """Samples of each sampler."""


def main() -> None:
    """Run the example."""
    dx.use_all_cores()
    options = tyro.cli(Options, description=__doc__)
    options.out.mkdir(parents=True, exist_ok=True)
    weights, means, stds = (jnp.asarray(a, jnp.float32) for a in (WEIGHTS, MEANS, STDS))
    denoiser = dx.exact.GaussianMixtureDenoiser(weights, means, stds, QuadraticSchedule())
    true = true_samples(options.samples, seed=0)
    results = {"true": distance(true_samples(options.samples, seed=1), true)}
    drawn = {}
    for name, steps in SAMPLERS.items():
        sampler = dx.samplers.find_sampler(name)
        found = dx.sample(
            denoiser, sampler, (2,), count=options.samples, steps=steps, key=jax.random.key(0)
        )
        drawn[name] = np.asarray(found)
        results[name] = distance(drawn[name], true)
    for name, value in results.items():
        print(f"{name}, {SAMPLERS.get(name, 0)} steps: {value:.4f}")
    (options.out / "results.json").write_text(json.dumps(results, indent=1))
    plot({"true": true, **drawn}, options.out / "custom_schedule.png")


def true_samples(count: int, seed: int) -> np.ndarray:
    """Samples of the mixture itself."""
    rng = np.random.default_rng(seed)
    component = rng.choice(len(WEIGHTS), count, p=WEIGHTS)
    return MEANS[component] + STDS[component, None] * rng.standard_normal((count, 2))


def distance(first: np.ndarray, second: np.ndarray) -> float:
    """The mean energy distance of both coordinates (Székely & Rizzo 2013)."""
    pairs = zip(first.T, second.T, strict=True)
    return float(np.mean([stats.energy_distance(a, b) for a, b in pairs]))


def plot(sets: dict[str, np.ndarray], path: Path) -> None:
    """The samples side by side."""
    matplotlib.use("agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(
        1, len(sets), figsize=(3 * len(sets), 3), layout="constrained", sharex=True, sharey=True
    )
    for axis, (name, points) in zip(axes, sets.items(), strict=True):
        axis.scatter(*points[:3000].T, s=1)
        axis.set(title=name, aspect="equal")
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main()
