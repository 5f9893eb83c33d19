"""The whole way: real images, training, export, and pictures drawn by a program without Python.

`make demo` runs this. It leaves in the folder `--out`: model.safetensors (the trained model) with the log
and the checkpoints of its training, sampler.safetensors (the artifact of the native program), the pictures
training.png, python.png, native.png and strip.png, and results.json with the figures of the table that it
prints. Run again with the same settings, it goes on from the last checkpoint.
"""

import dataclasses
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import matplotlib
import numpy as np
import tyro
from rich.console import Console
from rich.table import Table

import diffusion_eqx as dx

CLASSES = 10
GUIDANCE = 2.0
STEPS = 50
SEED = 2026
PROGRAMS = Path(sys.executable).parent


@dataclasses.dataclass(frozen=True)
class Options:
    """Train on Fashion-MNIST, export, sample natively, and judge the result."""

    out: Path = Path("demo")
    """Folder for all that the demo makes."""
    steps: int = 1000
    """Training steps."""
    batch_size: int = 64
    """Images of a training step."""
    samples: int = 500
    """Images that are judged."""
    epochs: int = 8
    """How often the judge sees each real image while it learns."""
    data_dir: Path | None = None
    """Folder of Fashion-MNIST's files, if not where its package puts them."""
    overwrite: bool = False
    """Start anew where the folder holds a demo of other settings."""


def main() -> None:
    """Run the demo."""
    dx.use_all_cores()
    options = tyro.cli(Options, description=__doc__)
    model, artifact = options.out / "model.safetensors", options.out / "sampler.safetensors"
    console = Console()

    console.rule("1. training")
    seconds = {"training": timed(lambda: train(options))}
    plot_training(options.out / "log.jsonl", options.out / "training.png")

    console.rule("2. export")
    guided = ["--guidance", "cfg", "--guidance-scale", GUIDANCE]
    export = ["sampler", model, "-o", artifact, *guided]
    seconds["export"] = timed(lambda: program("diffusion-eqx-export", *export))

    console.rule("3. sampling in Python")
    drawn: list[np.ndarray] = []
    seconds["80 images in Python"] = timed(lambda: drawn.append(sample_in_python(model, 80)))
    dx.save_picture(options.out / "python.png", drawn[0], columns=CLASSES, zoom=2)

    console.rule("4. sampling without Python")
    common = ["--seed", SEED, "--guidance-scale", GUIDANCE, "--steps", STEPS]
    native, strip = options.out / "native.png", options.out / "strip.png"
    eighty = ["sample", artifact, "-o", native, "-n", 80, "--columns", CLASSES, *common]
    seconds["80 images natively"] = timed(lambda: program("diffusion-sampler", *eighty))
    program("diffusion-sampler", "sample", artifact, "-o", strip, "-n", 8, "--strip", 5, *common)
    images = sample_natively(artifact, options.out, options.samples, common)

    console.rule("5. judging")
    console.print("an independent classifier learns from the real training images …")
    results: dict[str, Any] = {**evaluate(options, images)}
    compared = min(80, len(images))
    difference = float(np.abs(images[:compared] - drawn[0][:compared]).max())
    results["largest difference between Python's and native images"] = difference
    results["seconds"] = {name: round(value, 1) for name, value in seconds.items()}
    (options.out / "results.json").write_text(json.dumps(results, indent=1))
    show(console, results, native)


def train(options: Options) -> None:
    """Train a class-conditional U-Net in the folder, or go on with its training."""
    data = dx.data.fashion_mnist("train", options.data_dir)
    # Guidance at the highest noise costs variety (Kynkäänniemi et al. 2024).
    config = dx.config.DDIMConfig.for_data(
        data, name="fashion-unet", num_inference_steps=STEPS, guidance_interval=(0.0, 0.95)
    )
    model = dx.models.DDIMModel(config, key=jax.random.key(0))
    training = dx.config.TrainingConfig(steps=options.steps, batch_size=options.batch_size)
    try:
        dx.train(model, data, training, out=options.out, overwrite=options.overwrite)
    except dx.training.ResumeError as error:
        raise SystemExit(str(error).replace("overwrite=True", "--overwrite")) from None


def program(name: str, *arguments: object) -> None:
    """Run one of the project's programs; its messages are shown as they come."""
    command = [str(PROGRAMS / name), *map(str, arguments)]
    print("$", name, *command[1:], flush=True)
    subprocess.run(command, check=True)


def sample_in_python(path: Path, count: int) -> np.ndarray:
    """Images by the library, all classes in turn."""
    labels = np.arange(count) % CLASSES
    model = dx.load_model(path)
    images = model.sample(
        count, steps=STEPS, labels=labels, guidance=GUIDANCE, key=jax.random.key(SEED)
    )
    return np.asarray(images)


def sample_natively(artifact: Path, out: Path, count: int, common: list[object]) -> np.ndarray:
    """Images by the native program. Two processes share the work, and the machine's cores.

    Image k is the same whoever draws it: the second process goes on where the first ends.
    """
    # A multiple of the classes, so that labels go on in turn too.
    half = count // (2 * CLASSES) * CLASSES
    processes = []
    for number, (first, size) in enumerate([(0, half), (half, count - half)]):
        command = [
            PROGRAMS / "diffusion-sampler",
            *("sample", artifact, "-o", out / f"part{number}.npy"),
            *("-n", size, "--first", first, "--quiet", *common),
        ]
        processes.append(subprocess.Popen(list(map(str, command))))
    for process in processes:
        if process.wait() != 0:
            raise SystemExit(f"diffusion-sampler failed with exit code {process.returncode}")
    return np.concatenate([np.load(out / f"part{number}.npy") for number in range(2)])


def evaluate(options: Options, images: np.ndarray) -> dict[str, float]:
    """Conditional accuracy and Fréchet distance, beside those of real images."""
    train_set = dx.data.fashion_mnist("train", options.data_dir)
    test_set = dx.data.fashion_mnist("test", options.data_dir)
    assert test_set.labels is not None
    judge = dx.evaluation.train_classifier(train_set, epochs=options.epochs, key=jax.random.key(1))
    features, classes = dx.evaluation.judge(judge, images)
    reference, _ = dx.evaluation.judge(judge, test_set.images)
    return {
        "classifier's accuracy on the real test set": dx.evaluation.accuracy(
            judge, test_set.images, test_set.labels
        ),
        "native images judged": len(images),
        "native images of the class asked for": float(
            np.mean(classes == np.arange(len(images)) % CLASSES)
        ),
        "Fréchet distance of native images": dx.evaluation.frechet_distance(features, reference),
        f"Fréchet distance of {len(images)} real images": real_distance(
            judge, train_set.images, reference, len(images)
        ),
    }


def real_distance(
    judge: dx.evaluation.Classifier, images: np.ndarray, reference: np.ndarray, count: int
) -> float:
    """The mean distance of ten disjoint sets of `count` real training images."""
    sets = [images[i * count : (i + 1) * count] for i in range(10)]
    features = [dx.evaluation.judge(judge, each)[0] for each in sets]
    return float(np.mean([dx.evaluation.frechet_distance(f, reference) for f in features]))


def plot_training(log: Path, path: Path) -> None:
    """The training curve."""
    matplotlib.use("agg")
    from matplotlib import pyplot as plt

    rows = [json.loads(line) for line in log.read_text().splitlines()]
    figure, axes = plt.subplots(figsize=(6, 3.5), layout="constrained")
    axes.semilogy([row["step"] for row in rows], [row["loss"] for row in rows])
    axes.set(xlabel="training step", ylabel="loss", title="Training on Fashion-MNIST")
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=120)


def timed(action: Callable[[], Any]) -> float:
    """Seconds that the action takes."""
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def show(console: Console, results: dict[str, Any], native: Path) -> None:
    """Print the table, and where the picture is."""
    table = Table(show_header=False, title="the demo's results")
    for name, value in results.items():
        if name != "seconds":
            table.add_row(name, str(value) if isinstance(value, int) else f"{value:.4g}")
    for name, value in results["seconds"].items():
        table.add_row(f"seconds: {name}", str(value))
    console.print(table)
    console.print(f"Look at {native}: drawn by a program with no Python in it.")


if __name__ == "__main__":
    main()
