"""A network of your own in any sampler: any callable `(x, c_noise, cond, *, key)` is a backbone.

A small network written here learns points on two rings, one class each, and three samplers draw with it.
The script prints how far drawn points lie from their ring, and leaves own_backbone.png and results.json in
`--out`.
"""

import dataclasses
import json
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import matplotlib
import numpy as np
import tyro

import diffusion_eqx as dx

RADII = (0.4, 1.0)
SAMPLERS = {"ddim": 50, "heun": 15, "diffrax:Tsit5": 8}


class Waves(eqx.Module):
    """Random Fourier features of point, time and class, and two layers above them."""

    frequencies: jax.Array
    hidden: eqx.nn.Linear
    out: eqx.nn.Linear

    def __init__(self, width: int = 256, *, key: jax.Array):
        """A network with fresh weights."""
        keys = jax.random.split(key, 3)
        self.frequencies = jax.random.normal(keys[0], (width // 2, 4))
        self.hidden = eqx.nn.Linear(width, width, key=keys[1])
        self.out = eqx.nn.Linear(width, 2, key=keys[2])

    def __call__(self, x, c_noise, cond, *, key=None):
        """Points (batch, 2), timesteps (batch,) and labels (batch,) to (batch, 2)."""
        seen = jnp.stack([*x.T, c_noise / 500.0, 2.0 * cond], axis=-1)
        angles = seen @ self.frequencies.T
        waves = jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=-1)
        return jax.vmap(lambda h: self.out(jax.nn.silu(self.hidden(h))))(waves)


@dataclasses.dataclass(frozen=True)
class Options:
    """Learn two rings by a network of one's own."""

    out: Path = Path("own_backbone")
    """Folder for the picture and the figures."""
    steps: int = 2000
    """Training steps."""


def main() -> None:
    """Run the example."""
    dx.use_all_cores()
    options = tyro.cli(Options, description=__doc__)
    options.out.mkdir(parents=True, exist_ok=True)
    points, labels = rings(20_000)
    denoiser = train(dx.data.ArrayDataset(points, labels), options.steps)
    results = {"real": off_ring(points[:2000], labels[:2000])}
    drawn = {}
    wanted = np.arange(2000) % 2
    for name, steps in SAMPLERS.items():
        found = dx.sample(
            denoiser,
            dx.samplers.find_sampler(name),
            (2,),
            count=len(wanted),
            steps=steps,
            key=jax.random.key(1),
            cond=jnp.asarray(wanted),
        )
        drawn[name] = np.asarray(found)
        results[name] = off_ring(drawn[name], wanted)
    for name, value in results.items():
        print(f"{name}: {value:.3f} from the ring asked for")
    (options.out / "results.json").write_text(json.dumps(results, indent=1))
    plot(drawn, wanted, options.out / "own_backbone.png")


def train(data: dx.data.ArrayDataset, steps: int) -> dx.Denoiser:
    """A denoiser around the network: the pieces that `dx.train` puts together for a model."""
    network = Waves(key=jax.random.key(0))
    schedule, velocity = dx.schedules.FlowSchedule(), dx.parameterizations.VelocityPrediction()
    denoiser = dx.Denoiser(network, schedule, velocity)
    config = dx.config.TrainingConfig(steps=steps, batch_size=256, log_every=1000)
    recipe = dx.training.make_recipe(config, dx.losses.DenoisingLoss(denoiser))
    state, _ = dx.training.fit(network, data, recipe, config)
    return dx.Denoiser(dx.training.averaged(state), schedule, velocity)


def rings(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Points near two rings, and which ring each belongs to."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, count).astype(np.int32)
    angles = rng.uniform(0.0, 2.0 * np.pi, count)
    radii = np.asarray(RADII)[labels] + 0.03 * rng.standard_normal(count)
    points = radii[:, None] * np.stack([np.cos(angles), np.sin(angles)], axis=-1)
    return points.astype(np.float32), labels


def off_ring(points: np.ndarray, labels: np.ndarray) -> float:
    """The mean distance of points from the ring of their label."""
    return float(np.mean(np.abs(np.linalg.norm(points, axis=-1) - np.asarray(RADII)[labels])))


def plot(drawn: dict[str, np.ndarray], labels: np.ndarray, path: Path) -> None:
    """The points of each sampler side by side."""
    matplotlib.use("agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(
        1, len(drawn), figsize=(3 * len(drawn), 3.2), layout="constrained", sharex=True, sharey=True
    )
    for axis, (name, points) in zip(axes, drawn.items(), strict=True):
        axis.scatter(*points.T, s=1, c=labels, cmap="coolwarm")
        axis.set(title=f"{name}, {SAMPLERS[name]} steps", aspect="equal")
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main()
