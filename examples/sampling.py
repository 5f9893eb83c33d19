"""One model, many ways to sample: DDPM, DDIM, few steps, temperature, progressive.

Draws from a class-conditional model (of digits, trained here, unless `--model` names another) and judges
the images by a classifier of real ones. Leaves sampling.png (a row for each way), progressive.png,
progressive.gif and results.json in `--out`.
"""

import dataclasses
import json
import time
from pathlib import Path
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from rich.console import Console
from rich.table import Table
from small_model import ModelOptions, prepare

from diffusion_eqx.data import image_grid, save_animation, save_picture
from diffusion_eqx.evaluation import frechet_distance, judge, train_classifier

WAYS: dict[str, tuple[str, int, dict[str, Any]]] = {
    "DDPM, all steps": ("ddpm", 1000, {}),
    "DDPM, 100 steps": ("ddpm", 100, {}),
    "DDIM, 50 steps": ("ddim", 50, {}),
    "DDIM, 20 steps": ("ddim", 20, {}),
    "UniPC, 10 steps": ("unipc", 10, {}),
    "temperature 0.8": ("ddpm", 100, {"temperature": 0.8}),
    "temperature 1.1": ("ddpm", 100, {"temperature": 1.1}),
}


@dataclasses.dataclass(frozen=True)
class Options:
    """Sample one model in many ways."""

    model: Annotated[ModelOptions, tyro.conf.arg(name="")]
    out: Path = Path("sampling")
    """Folder for the pictures and the figures."""
    judged: int = 200
    """Images of each way."""
    guidance_scale: float = 2.0
    """Scale of classifier-free guidance."""


def main() -> None:
    """Run the example."""
    options = tyro.cli(Options, description=__doc__)
    options.out.mkdir(parents=True, exist_ok=True)
    setting = prepare(options.model)
    model, classes = setting.model, setting.train.num_classes or 1
    epochs = 3 if len(setting.train) > 10_000 else 30
    classifier = train_classifier(setting.train, epochs=epochs, key=jax.random.key(1))
    reference, _ = judge(classifier, setting.test.images)
    labels = np.arange(options.judged) % classes
    common: dict[str, Any] = {
        "key": jax.random.key(2),
        "guidance_scale": options.guidance_scale,
    }
    results, rows = {}, []
    for name, (scheduler, steps, fields) in WAYS.items():
        start = time.perf_counter()
        images = np.asarray(
            model.sample(
                options.judged, scheduler, steps, labels=jnp.asarray(labels), **common, **fields
            )
        )
        features, found = judge(classifier, images)
        results[name] = {
            "accuracy": float(np.mean(found == labels)),
            "distance": frechet_distance(features, reference),
            "seconds, compilation included": time.perf_counter() - start,
        }
        rows.append(images[:classes])
    zoom = 2 if model.config.input_shape[0] > 8 else 6
    save_picture(options.out / "sampling.png", image_grid(np.concatenate(rows), classes), zoom=zoom)
    snapshots = model.progressive(
        classes, "ddim", 50, every=5, labels=jnp.arange(classes), **common
    )
    frames = [image_grid(snapshot, classes) for snapshot in snapshots]
    save_animation(options.out / "progressive.gif", frames)
    save_picture(options.out / "progressive.png", np.concatenate(frames), zoom=zoom)
    (options.out / "results.json").write_text(json.dumps(results, indent=1))
    table = Table("", "class asked for", "Fréchet distance", "seconds", title="ways to sample")
    for name, row in results.items():
        accuracy, distance, seconds = row.values()
        table.add_row(name, f"{accuracy:.1%}", f"{distance:.2f}", f"{seconds:.1f}")
    Console().print(table)


if __name__ == "__main__":
    main()
