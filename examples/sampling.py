"""One model, many ways to sample: DDPM, DDIM, few steps, temperature, progressive.

Draws from a class-conditional model (of digits, trained here, unless `--model` names another). A classifier
of real images judges what was drawn. Leaves sampling.png (a row for each way), progressive.png,
progressive.gif and results.json in `--out`.
"""

import dataclasses
import json
import time
from pathlib import Path
from typing import Annotated, Any

import jax
import numpy as np
import tyro
from rich.console import Console
from rich.table import Table
from small_model import ModelOptions, prepare, save_rows, train_judge

import diffusion_eqx as dx

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
    dx.use_all_cores()
    options = tyro.cli(Options, description=__doc__)
    options.out.mkdir(parents=True, exist_ok=True)
    setting = prepare(options.model)
    model, classes = setting.model, setting.classes
    judge = train_judge(setting.train)
    reference, _ = dx.evaluation.judge(judge, setting.test.images)
    labels = np.arange(options.judged) % classes
    key = jax.random.key(2)
    results, rows = {}, []
    for name, (sampler, steps, numbers) in WAYS.items():
        start = time.perf_counter()
        drawn = model.sample(
            options.judged,
            sampler,
            steps=steps,
            labels=labels,
            guidance=options.guidance_scale,
            key=key,
            **numbers,
        )
        images = np.asarray(drawn)
        features, found = dx.evaluation.judge(judge, images)
        results[name] = {
            "accuracy": float(np.mean(found == labels)),
            "distance": dx.evaluation.frechet_distance(features, reference),
            "seconds, compilation included": time.perf_counter() - start,
        }
        rows.append(images[:classes])
    save_rows(options.out / "sampling.png", np.concatenate(rows), classes)
    snapshots = model.trajectory(
        classes,
        "ddim",
        steps=50,
        every=5,
        labels=np.arange(classes),
        guidance=options.guidance_scale,
        key=key,
    )
    dx.data.save_animation(options.out / "progressive.gif", snapshots, columns=classes)
    every_row = np.asarray(snapshots).reshape(-1, *model.config.input_shape)
    save_rows(options.out / "progressive.png", every_row, classes)
    (options.out / "results.json").write_text(json.dumps(results, indent=1))
    table = Table("", "class asked for", "Fréchet distance", "seconds", title="ways to sample")
    for name, row in results.items():
        accuracy, distance, seconds = row.values()
        table.add_row(name, f"{accuracy:.1%}", f"{distance:.2f}", f"{seconds:.1f}")
    Console().print(table)


if __name__ == "__main__":
    main()
