"""What a training step waits for its data, and what the host's own code takes of a step.

    python -m benchmarks.data_loading [--steps N] [--out FOLDER]

The first part trains on JPEG files that are decoded at 64x64 as they are read, and measures the wait in
the call that takes a batch, with and without reading ahead. The second part times what the host does for
the data of a step of the demo's model: taking a batch that is there, and putting it on the devices. The
goal for it is 2 % of a step. On CPUs the call that starts a step computes it too, so that its own overhead
is not in this.
"""

import dataclasses
import io
import json
import statistics
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
import tyro
from PIL import Image

import diffusion_eqx as dx

GOAL = 0.02


@dataclasses.dataclass(frozen=True)
class Options:
    """Time the reading of batches against the step."""

    images: int = 500
    """JPEG files, of 200 to 400 pixels a side."""
    batch: int = 64
    """Images of a step."""
    steps: int = 12
    """Steps timed; the first two are left out."""
    channels: tuple[int, ...] = (32, 64)
    """Of the U-Net that is trained at 64x64."""
    out: Path = Path("benchmarks/results")
    """Folder of the figures."""


def main() -> None:
    """Run the benchmark."""
    options = tyro.cli(Options, description=__doc__)
    rows = {"decoding": decoding(options), "host": host(options)}
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "data_loading.json").write_text(json.dumps(rows, indent=1))
    report(rows)


def jpegs(count: int) -> list[dict[str, Any]]:
    """Smooth pictures, as photographs are, in the bytes of JPEG files."""
    random, records = np.random.default_rng(0), []
    for number in range(count):
        width, height = (int(side) for side in random.integers(200, 400, 2))
        small = Image.fromarray(random.integers(0, 256, (12, 12, 3), np.uint8))
        file = io.BytesIO()
        small.resize((width, height), Image.Resampling.BICUBIC).save(file, "JPEG", quality=90)
        records.append({"image": file.getvalue(), "label": number % 10})
    return records


def decoding(options: Options) -> dict[str, float]:
    """Medians in seconds: a step, a batch read alone, and the wait for one that is read ahead."""
    data = dx.data.as_dataset(jpegs(options.images), size=64, channels=3)
    config = dx.config.DDIMConfig.for_data(data)
    backbone = dataclasses.replace(
        config.backbone, hidden_dims=options.channels, attention_resolutions=()
    )
    step = Step(dataclasses.replace(config, backbone=backbone), data, options.batch)
    batches = data.batches(options.batch, seed=0)
    alone = [timed(lambda i=i: batches[i])[0] for i in range(options.steps)]
    waits, steps = [], []
    rows = slice(0, options.batch)
    with dx.training.ReadAhead(batches, rows, first=0, last=options.steps) as ahead:
        for _ in range(options.steps):
            seconds, batch = timed(lambda: ahead.take(lambda: False))
            assert batch is not None
            waits.append(seconds)
            steps.append(timed(lambda batch=batch: step(batch))[0])
    return {
        "step": statistics.median(steps[2:]),
        "batch read alone": statistics.median(alone[2:]),
        "wait for a batch read ahead": statistics.median(waits[2:]),
        "longest wait": max(waits[2:]),
    }


def host(options: Options) -> dict[str, float]:
    """Medians in seconds at the size of the demo: its step, and the host's code around it."""
    images = np.random.default_rng(0).integers(0, 256, (2000, 28, 28, 1), np.uint8)
    data = dx.data.ImageDataset(images, np.arange(2000) % 10)
    step = Step(dx.config.DDIMConfig.for_data(data), data, options.batch)
    batches = data.batches(options.batch, seed=0)
    step(batches[0])
    taking, placing, steps = [], [], []
    with dx.training.ReadAhead(
        batches, slice(0, options.batch), first=0, last=options.steps
    ) as ahead:
        for _ in range(options.steps):
            time.sleep(0.05)  # The batch is there: what follows is code of the host alone.
            seconds, batch = timed(lambda: ahead.take(lambda: False))
            assert batch is not None
            taking.append(seconds)
            placing.append(timed(lambda batch=batch: step.placed(batch))[0])
            steps.append(timed(lambda batch=batch: step(batch))[0])
    row = {
        "step": statistics.median(steps[2:]),
        "take a batch": statistics.median(taking[2:]),
        "put it on the devices": statistics.median(placing[2:]),
    }
    spent = row["take a batch"] + row["put it on the devices"]
    return row | {"share of a step": spent / row["step"]}


class Step:
    """A training step of a model, by the parts that `fit` is made of."""

    def __init__(self, config: dx.config.DDIMConfig, data: Any, batch_size: int):
        training = dx.config.TrainingConfig(batch_size=batch_size)
        model = dx.models.DDIMModel(config, key=jax.random.key(0))
        loss = dx.losses.training_loss(model.denoiser, model.config, training)
        self.recipe = dx.training.make_recipe(training, loss)
        self.where = dx.training.placement(batch_size)
        state = self.recipe.init(model.denoiser.backbone, key=jax.random.key(1))
        self.state = self.where.place(state)

    def __call__(self, batch: dict[str, np.ndarray]) -> None:
        images, labels = self.placed(batch)
        self.state, _ = dx.training.train_step(
            self.recipe, self.state, images, labels, placement=self.where
        )
        self.state.step.block_until_ready()

    def placed(self, batch: dict[str, np.ndarray]) -> Any:
        """Images and labels on the devices."""
        arrays = self.where.split((batch["images"], batch.get("labels")))
        return jax.block_until_ready(arrays)


def timed(call: Any) -> tuple[float, Any]:
    began = time.perf_counter()
    found = call()
    return time.perf_counter() - began, found


def report(rows: dict[str, dict[str, float]]) -> None:
    """Print the figures."""
    for part, row in rows.items():
        print(part)
        for name, value in row.items():
            print(
                f"    {name}: " + (f"{value:.2%}" if "share" in name else f"{1e3 * value:.2f} ms")
            )
    print(f"goal for the host: at most {GOAL:.0%} of a step")


if __name__ == "__main__":
    main()
