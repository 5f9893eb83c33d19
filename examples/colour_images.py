"""DDPM on colour images: 32x32 emoji, from forward diffusion to samples.

Shows what noise does to an image, trains a U-Net to undo it, and draws. How near the drawn images are to
real ones is judged by the Fréchet distance of their colours, averaged over squares of 8x8 pixels. Leaves
model.safetensors, forward.png, drawn.png, progressive.png and results.json in `--out`.
"""

import dataclasses
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from small_model import trained, unit

from diffusion_eqx.config import DDPMConfig, NoiseScheduleConfig, UNetBackboneConfig
from diffusion_eqx.data import ImageDataset, emoji, image_grid, save_picture
from diffusion_eqx.evaluation import frechet_distance
from diffusion_eqx.models import DDPMModel, save_model


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
    options = tyro.cli(Options, description=__doc__)
    whole = emoji().images
    order = np.random.default_rng(0).permutation(len(whole))
    seen, held_out = whole[order[options.judged :]], whole[order[: options.judged]]
    config = DDPMConfig(
        name="emoji",
        backbone=UNetBackboneConfig(
            hidden_dims=(64, 128, 128) if options.full else (16, 32, 64),
            in_channels=3,
            out_channels=3,
            attention_resolutions=(8,),
        ),
        noise_schedule=NoiseScheduleConfig(schedule_type="cosine"),
        input_shape=(32, 32, 3),
        prediction_type="v_prediction",
    )
    model = DDPMModel(config, key=jax.random.key(0))

    image = jnp.asarray(unit(held_out[:8]))
    timesteps = (0, 99, 249, 499, 749, 999)
    noisy = [
        model.forward_diffusion(image, jnp.full(len(image), t), key=jax.random.key(1))[0]
        for t in timesteps
    ]
    save_picture(options.out / "forward.png", image_grid(jnp.concatenate(noisy), 8), zoom=2)

    steps = options.steps or (6000 if options.full else 200)
    model = trained(model, ImageDataset(seen), steps=steps, batch_size=32)
    save_model(options.out / "model.safetensors", model, ema=True)

    drawn = np.asarray(model.sample(options.judged, "ddim", 25, key=jax.random.key(2)))
    save_picture(options.out / "drawn.png", image_grid(drawn[:64], 16), zoom=2)
    snapshots = model.progressive(8, "ddpm", 50, every=10, key=jax.random.key(3))
    strip = image_grid(snapshots.reshape(-1, 32, 32, 3), 8)
    save_picture(options.out / "progressive.png", strip, zoom=2)

    noise = np.random.default_rng(1).uniform(-1, 1, held_out.shape).astype(np.float32)
    reference = colours(unit(seen))
    results = {
        name: frechet_distance(colours(images), reference)
        for name, images in (("unseen", unit(held_out)), ("drawn", drawn), ("noise", noise))
    }
    for name, distance in results.items():
        print(f"{name}: {distance:.2f} from real emoji, in their colours")
    (options.out / "results.json").write_text(json.dumps(results, indent=1))


def colours(images: np.ndarray) -> np.ndarray:
    """The mean colours of squares of 8x8 pixels: (N, 48)."""
    return images.reshape(len(images), 4, 8, 4, 8, 3).mean((2, 4)).reshape(len(images), -1)


if __name__ == "__main__":
    main()
