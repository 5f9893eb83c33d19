"""Training against a plain PyTorch script with diffusers, and bfloat16 against float32, on Fashion-MNIST.

    python -m benchmarks.training_vs_diffusers [--out FOLDER] [--smoke]

Each trains the same U-Net for the same steps of the same batch size, with AdamW, a learning rate that
rises and falls by a cosine, a moving average of the weights, and the squared error of the noise on the
linear schedule of 1000 steps. For each seed the three take turns, so that a machine whose speed drifts
favours none. Images per second leave out the first step, which compiles. PyTorch's weights are then put
into our network, and one sampler draws with all averages from the same noise: the Fréchet distance to the
test set is in the features of one classifier. No other program should run meanwhile.
"""

import dataclasses
import functools
import json
import math
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import jax
import numpy as np
import torch
import tyro
from diffusers.optimization import get_cosine_schedule_with_warmup
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from diffusers.training_utils import EMAModel

import diffusion_eqx as dx
from benchmarks.twin_unets import Sizes, our_model, their_unet, with_their_weights

SIZES = Sizes((16, 32, 64), layers=1, head_dim=16, groups=4)
WARMUP, EMA_DECAY = 50, 0.99
PRECISIONS = ("float32", "bfloat16")


@dataclasses.dataclass(frozen=True)
class Options:
    """Compare training with a plain script."""

    out: Path = Path("benchmarks/results")
    """Folder of the figures."""
    seeds: int = 3
    """Runs of each."""
    steps: int = 600
    """Training steps of a run."""
    batch_size: int = 64
    """Images of a step."""
    learning_rate: float = 1e-3
    """The peak of the learning rate."""
    count: int = 1000
    """Images drawn for the distance."""
    epochs: int = 2
    """Of the classifier's training."""
    smoke: bool = False
    """One seed, two steps, few images, float32 only: whether the benchmark runs at all."""


def main() -> None:
    """Run the benchmark."""
    cores = dx.use_all_cores()
    options = tyro.cli(Options, description=__doc__)
    if options.smoke:
        options = dataclasses.replace(options, seeds=1, steps=2, count=20, epochs=1)
    torch.set_num_threads(cores)
    data = dx.data.fashion_mnist("train")
    test = dx.data.fashion_mnist("test")
    if options.smoke:
        data, test = first(data), first(test)
    judge = dx.evaluation.train_classifier(
        data, epochs=options.epochs, batch_size=128, key=jax.random.key(1)
    )
    reference, _ = dx.evaluation.judge(judge, test.images)

    def distance(model: dx.models.DDIMModel) -> float:
        drawn = model.sample(options.count, "ddim", steps=25, key=jax.random.key(7))
        features, _ = dx.evaluation.judge(judge, np.asarray(drawn))
        return dx.evaluation.frechet_distance(features, reference)

    rows: list[dict[str, Any]] = []
    for seed in range(options.seeds):
        runs: list[tuple[str, Callable[[int], Any]]] = [
            *(
                (f"ours, {name}", functools.partial(ours, data, name, options))
                for name in PRECISIONS[: 1 if options.smoke else None]
            ),
            ("diffusers, float32", functools.partial(theirs, data, options)),
        ]
        # Whoever came first comes last next time.
        for name, run in runs[seed % 3 :] + runs[: seed % 3]:
            model, speed = run(seed)
            row = {"name": name, "seed": seed, "images/s": speed, "distance": distance(model)}
            rows.append(row)
            print(
                f"{name}, seed {seed}: {speed:.0f} images/s, distance {row['distance']:.2f}",
                flush=True,
            )
    results = {
        "machine": {"cores": cores, "jax": jax.__version__},
        "peers": {"torch": torch.__version__, "diffusers": diffusers.__version__},
        "setting": {
            "parameters": our_model(SIZES).num_parameters,
            "steps": options.steps,
            "batch size": options.batch_size,
            "images drawn": options.count,
        },
        "runs": rows,
        "summary": summary(rows),
    }
    print(json.dumps(results["summary"], indent=1))
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "training_vs_diffusers.json").write_text(json.dumps(results, indent=1))


def first(data: dx.data.ImageDataset) -> dx.data.ImageDataset:
    """The first thousand images."""
    assert data.labels is not None
    return dx.data.ImageDataset(data.images[:1000], data.labels[:1000])


def ours(
    data: dx.data.ImageDataset, precision: str, options: Options, seed: int
) -> tuple[dx.models.DDIMModel, float]:
    """Our model, trained, and the images of a second."""
    config = dx.config.TrainingConfig(
        steps=options.steps,
        batch_size=options.batch_size,
        learning_rate=options.learning_rate,
        warmup_steps=min(WARMUP, options.steps - 1),
        b2=0.999,
        loss_weighting="uniform",
        ema_decay=EMA_DECAY,
        precision=precision,  # pyright: ignore[reportArgumentType]
        log_every=options.steps,
        seed=seed,
    )
    unlabelled = dx.data.ImageDataset(data.images)
    reports = Reports()
    model = dx.train(our_model(SIZES, seed=seed), unlabelled, config, callbacks=[reports])
    return model, reports.speed


class Reports(dx.training.Callback):
    """Keeps the speed that the last report says."""

    speed = 0.0

    def evaluate(self, run: dx.training.Run, row: dict[str, float]) -> None:
        """Take the speed of a report."""
        self.speed = row["images_per_second"]


def theirs(
    data: dx.data.ImageDataset, options: Options, seed: int
) -> tuple[dx.models.DDIMModel, float]:
    """diffusers' U-Net, trained as its tutorial does, as our model; and the images of a second."""
    torch.manual_seed(seed)
    network = their_unet(SIZES)
    optimizer = torch.optim.AdamW(network.parameters(), lr=options.learning_rate, weight_decay=0.0)
    rate = get_cosine_schedule_with_warmup(optimizer, min(WARMUP, options.steps - 1), options.steps)
    average = EMAModel(network.parameters(), decay=EMA_DECAY)
    scheduler: Any = DDPMScheduler(1000, beta_schedule="linear")
    images = torch.tensor(dx.data.to_unit_range(data.images).transpose(0, 3, 1, 2).copy())
    order = torch.Generator().manual_seed(seed)
    timed = 0.0
    for step in range(options.steps):
        rows = torch.randint(len(images), (options.batch_size,), generator=order)
        x0 = images[rows]
        noise = torch.randn_like(x0)
        times = torch.randint(1000, (len(x0),))
        noisy = scheduler.add_noise(x0, noise, times).to(memory_format=torch.channels_last)
        loss = torch.nn.functional.mse_loss(network(noisy, times).sample, noise)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        rate.step()
        optimizer.zero_grad()
        average.step(network.parameters())
        if step == 0:
            timed = time.perf_counter()
    speed = (options.steps - 1) * options.batch_size / (time.perf_counter() - timed)
    average.copy_to(network.parameters())
    return with_their_weights(our_model(SIZES, seed=seed), network), speed


def summary(rows: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Means over the seeds, their spread, and each one's speed as a multiple of diffusers' of the seed."""
    base = {row["seed"]: row["images/s"] for row in rows if row["name"].startswith("diffusers")}
    found = {}
    for name in dict.fromkeys(row["name"] for row in rows):
        mine = [row for row in rows if row["name"] == name]
        distances = [row["distance"] for row in mine]
        found[name] = {
            "distance": statistics.mean(distances),
            "deviation": statistics.stdev(distances) if len(mine) > 1 else math.nan,
            "images/s": statistics.median(row["images/s"] for row in mine),
            "speed": statistics.median(row["images/s"] / base[row["seed"]] for row in mine),
        }
    return found


if __name__ == "__main__":
    main()
