"""DDPM on colour images: 32x32 emoji, from forward diffusion to samples.

Shows what noise does to an image, trains a U-Net to undo it, and draws. The Fréchet distance of colours,
averaged over squares of 8x8 pixels, says how near the drawn images are to real ones. Leaves
model.safetensors, forward.png, drawn.png, progressive.png and results.json in `--out`.
"""

import dataclasses
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import tyro

import diffusion_eqx as dx


@dataclasses.dataclass(frozen=True)
class Options:
    """Learn to draw emoji."""

    out: Path = Path("colour_images")
    """Folder for model, pictures and figures."""
    full: bool = False
    """A larger network and longer training."""
    steps: int | None = None
    """Training steps; by default 200, or 6000 with --full."""
    judged: int = 100
    """Images that are drawn and judged."""


def main() -> None:
    """Run the example."""
    dx.use_all_cores()
    options = tyro.cli(Options, description=__doc__)
    whole = dx.data.emoji().images
    order = np.random.default_rng(0).permutation(len(whole))
    seen = dx.data.ImageDataset(whole[order[options.judged :]])
    held_out = dx.data.to_unit_range(whole[order[: options.judged]])
    backbone = dx.config.UNetBackboneConfig(
        hidden_dims=(64, 128, 128) if options.full else (16, 32, 64),
        in_channels=3,
        out_channels=3,
        attention_resolutions=(8,),
    )
    config = dx.config.DDPMConfig.for_data(seen, name="emoji", backbone=backbone)
    model = dx.models.DDPMModel(config, key=jax.random.key(0))
    save_picture(options.out / "forward.png", noised(model, held_out[:8]), columns=8)

    steps = options.steps or (6000 if options.full else 200)
    training = dx.config.TrainingConfig(steps=steps, batch_size=32, log_every=100)
    model = dx.train(model, seen, training)
    dx.save_model(options.out / "model.safetensors", model, record={"ema": True})

    drawn = np.asarray(model.sample(options.judged, "ddim", steps=25, key=jax.random.key(2)))
    save_picture(options.out / "drawn.png", drawn[:64], columns=16)
    snapshots = np.asarray(model.trajectory(8, "ddpm", steps=50, every=10, key=jax.random.key(3)))
    save_picture(options.out / "progressive.png", snapshots.reshape(-1, *seen.shape), columns=8)

    noise = np.random.default_rng(1).uniform(-1, 1, held_out.shape).astype(np.float32)
    reference = colours(dx.data.to_unit_range(seen.images))
    results = {
        name: dx.evaluation.frechet_distance(colours(images), reference)
        for name, images in (("unseen", held_out), ("drawn", drawn), ("noise", noise))
    }
    for name, distance in results.items():
        print(f"{name}: {distance:.2f} from real emoji, in their colours")
    (options.out / "results.json").write_text(json.dumps(results, indent=1))


def noised(model: dx.models.DDPMModel, images: np.ndarray) -> jax.Array:
    """Images at ever later timesteps, a row for each, all with the same noise."""
    noise = jax.random.normal(jax.random.key(1), images.shape)
    levels = [model.schedule.at_timestep(k) for k in (0, 99, 249, 499, 749, 999)]
    return jnp.concatenate([level.noised(jnp.asarray(images), noise) for level in levels])


def save_picture(path: Path, images: np.ndarray | jax.Array, columns: int) -> None:
    """Write images as a picture; noise may leave the range of colours, and is clipped."""
    dx.save_picture(path, np.clip(np.asarray(images), -1.0, 1.0), columns=columns, zoom=2)


def colours(images: np.ndarray) -> np.ndarray:
    """The mean colours of squares of 8x8 pixels: (N, 48)."""
    return images.reshape(len(images), 4, 8, 4, 8, 3).mean((2, 4)).reshape(len(images), -1)


if __name__ == "__main__":
    main()
