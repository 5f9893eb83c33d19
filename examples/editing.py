"""Editing: inversion, interpolation, SDEdit, inpainting, editing by inversion, and coarse to fine.

Prints what can be measured of each, judged by a classifier of real images, and leaves pictures and
results.json in `--out`.
"""

import dataclasses
import json
from pathlib import Path
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from jax import Array
from rich.console import Console
from rich.table import Table
from small_model import ModelOptions, Setting, prepare, train_model, unit

from diffusion_eqx.data import ImageDataset, image_grid, save_picture
from diffusion_eqx.editing import (
    InpaintingSampler,
    ddim_invert,
    edit_by_inversion,
    interpolate,
    sample_multiscale,
    sdedit,
)
from diffusion_eqx.evaluation import Classifier, frechet_distance, judge, train_classifier
from diffusion_eqx.samplers import (
    ClippedSampler,
    DDIMSampler,
    DDPMSampler,
    LogSNRGrid,
    sample,
    sample_from,
)

GUIDANCE = 2.0
Results = dict[str, Any]

# Its last step begins at the least noise there is, so that it can be inverted; see `ddim_invert_to`.
GRID = LogSNRGrid()

# A t-shirt becomes a pullover; among the digits, a 0 a 2.
SOURCE, TARGET = 0, 2


@dataclasses.dataclass(frozen=True)
class Options:
    """Edit real images, and draw coarse to fine."""

    model: Annotated[ModelOptions, tyro.conf.arg(name="")]
    out: Path = Path("editing")
    """Folder of the pictures."""
    count: int = 16
    """Images that are edited."""
    steps: int = 50
    """Steps of sampling."""
    judged: int = 500
    """Images by which coarse-to-fine drawing is judged."""
    coarse_steps: int = 1000
    """Training steps of the coarse model."""


def main() -> None:
    """Run the example."""
    options = tyro.cli(Options, description=__doc__)
    setting = prepare(options.model)
    epochs = 3 if len(setting.train) > 10_000 else 30
    classifier = train_classifier(setting.train, epochs=epochs, key=jax.random.key(1))
    console = Console()
    results: Results = {}
    for part in (inversion, interpolation, strengths, inpainting):
        console.print(part(setting, options, results))
    console.print(editing(setting, classifier, options, results))
    console.print(multiscale(setting, classifier, options, results))
    (options.out / "results.json").write_text(json.dumps(results, indent=1))


def table_of(title: str, *columns: str) -> Table:
    """An empty table."""
    table = Table(title=title)
    for column in columns:
        table.add_column(column)
    return table


def picture(options: Options, name: str, rows: list[Array], columns: int) -> None:
    """Write rows of images as a picture."""
    images = jnp.concatenate([row[:columns] for row in rows])
    zoom = 2 if images.shape[1] > 8 else 6
    save_picture(options.out / f"{name}.png", image_grid(images, columns), zoom=zoom)


def inversion(setting: Setting, options: Options, results: Results) -> Table:
    """How far the image sampled from the inverted noise is from the image."""
    images, labels = first_images(setting, options)
    sampler = DDIMSampler(setting.denoiser, GRID)
    counts = (1, 5, 15)
    table = table_of(
        "Inversion and back: largest (mean) error of a pixel",
        "steps",
        *(f"{n} iterations" for n in counts),
    )
    for steps in (options.steps // 5, options.steps):
        cells = []
        for n in counts:
            noise = ddim_invert(sampler, images, steps=steps, iterations=n, cond=labels)
            back = sample_from(sampler, noise, steps=steps, key=jax.random.key(0), cond=labels)
            error = jnp.abs(back - images)
            results[f"inversion, {steps} steps, {n} iterations"] = float(error.max())
            cells.append(f"{float(error.max()):.2e} ({float(error.mean()):.1e})")
        table.add_row(str(steps), *cells)
    return table


def interpolation(setting: Setting, options: Options, results: Results) -> Table:
    """From images of one class to images of another, without any class given."""
    first, second = (jnp.asarray(setting.of_class(c, 4)) for c in (SOURCE, TARGET))
    path = interpolate(
        DDIMSampler(setting.denoiser, GRID),
        first,
        second,
        count=8,
        steps=options.steps,
        iterations=15,
    )
    picture(options, "interpolation", [path[:, i] for i in range(4)], 8)
    table = table_of("Interpolation", "largest error at the ends", "change of a step, largest of 7")
    ends = jnp.maximum(jnp.abs(path[0] - first).max(), jnp.abs(path[-1] - second).max())
    change = jnp.mean(jnp.abs(jnp.diff(path, axis=0)), axis=(1, 2, 3, 4))
    whole = jnp.mean(jnp.abs(second - first))
    results["interpolation, ends"] = float(ends)
    table.add_row(f"{float(ends):.2e}", f"{float(change.max() / whole):.2f} of the whole")
    return table


def strengths(setting: Setting, options: Options, results: Results) -> Table:
    """SDEdit towards the images' own classes."""
    images, labels = first_images(setting, options)
    sampler = setting.model.sampler("ddim", guidance_scale=GUIDANCE)
    table = table_of("SDEdit", "strength", "mean change of a pixel")
    rows = [images]
    for strength in (0.2, 0.4, 0.6, 0.8, 1.0):
        rows.append(
            sdedit(
                sampler,
                images,
                strength=strength,
                steps=options.steps,
                key=jax.random.key(2),
                cond=labels,
            )
        )
        change = float(jnp.abs(rows[-1] - images).mean())
        results[f"sdedit, strength {strength}"] = change
        table.add_row(f"{strength:.1f}", f"{change:.3f}")
    picture(options, "sdedit", rows, min(10, len(images)))
    return table


def inpainting(setting: Setting, options: Options, results: Results) -> Table:
    """The middle filled in, by replacement alone and by RePaint; the seam is its border."""
    images, labels = first_images(setting, options)
    size = images.shape[1]
    edge = round(2 * size / 7)
    mask = jnp.zeros((1, size, size, 1)).at[:, edge : size - edge, edge : size - edge].set(1.0)
    denoiser = setting.model.guided(None)
    table = table_of(
        "Inpainting", "", "gradient across the seam, of the images'", "error inside", "known kept"
    )
    rows = [images, jnp.where(mask > 0, -1.0, images)]
    for name, resample, jump in (("replacement", 1, 1), ("RePaint", 10, 1), ("RePaint", 10, 5)):
        method = InpaintingSampler(DDPMSampler(denoiser), images, mask, resample, jump)
        filled = sample(
            ClippedSampler(method),
            setting.model.config.input_shape,
            count=len(images),
            steps=options.steps,
            key=jax.random.key(3),
            cond=labels,
        )
        rows.append(filled)
        ratio = seam(filled, edge) / seam(images, edge)
        inside = float(jnp.sum(jnp.abs(filled - images)) / jnp.sum(mask) / len(images))
        kept = bool(jnp.all(jnp.where(mask > 0, True, filled == images)))
        label = name if resample == 1 else f"{name}, {resample} times, jumps of {jump}"
        results[f"inpainting, {label}"] = {"seam": ratio, "error": inside, "kept": kept}
        table.add_row(label, f"{ratio:.2f}", f"{inside:.3f}", "exactly" if kept else "no")
    picture(options, "inpainting", rows, min(10, len(images)))
    return table


def seam(images: Array, edge: int) -> float:
    """The mean absolute difference of neighbours across the border of the middle square."""
    inside = slice(edge, images.shape[1] - edge)
    differences = []
    for turned in (images, jnp.swapaxes(images, 1, 2)):
        for before in (edge - 1, images.shape[1] - edge - 1):
            across = turned[:, before + 1, inside] - turned[:, before, inside]
            differences.append(jnp.mean(jnp.abs(across)))
    return float(jnp.mean(jnp.stack(differences)))


def editing(setting: Setting, classifier: Classifier, options: Options, results: Results) -> Table:
    """From one class to another, beside images of the target class drawn from scratch."""
    images = jnp.asarray(setting.of_class(SOURCE, options.count))
    source, target = (jnp.full(len(images), c) for c in (SOURCE, TARGET))
    names = setting.train.class_names
    table = table_of(
        f"Editing: {names[SOURCE]} to {names[TARGET]}",
        "",
        f"seen as {names[TARGET]}",
        "likeness to the source",
    )
    drawn = setting.model.sample(
        len(images),
        "ddim",
        options.steps,
        key=jax.random.key(4),
        labels=target,
        guidance_scale=GUIDANCE,
    )
    rows = {"drawn from scratch": drawn}
    for strength in (0.5, 0.7, 1.0):
        rows[f"edited, strength {strength}"] = edit_by_inversion(
            DDIMSampler(setting.denoiser),
            images,
            source=source,
            target=target,
            steps=options.steps,
            strength=strength,
            iterations=5,
            guided=setting.model.guided(GUIDANCE),
        )
    for name, row in rows.items():
        pairs = zip(np.asarray(row), np.asarray(images), strict=True)
        likeness = np.mean([np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in pairs])
        hits = np.mean(judge(classifier, np.clip(row, -1, 1))[1] == TARGET)
        results[f"editing, {name}"] = {"hits": float(hits), "likeness": float(likeness)}
        table.add_row(name, f"{hits:.0%}", f"{likeness:.2f}")
    picture(options, "editing", [images, *rows.values()], min(10, len(images)))
    return table


def multiscale(
    setting: Setting, classifier: Classifier, options: Options, results: Results
) -> Table:
    """Coarse to fine, beside the fine model alone at the same cost.

    A step of the coarse model, with a quarter of the pixels, costs a quarter.
    """
    height, width, channels = setting.model.config.input_shape
    shape = (height // 2, width // 2, channels)
    images = unit(setting.train.images)
    small = images.reshape(len(images), shape[0], 2, shape[1], 2, channels).mean((2, 4))
    coarse = train_model(
        ImageDataset(small, setting.train.labels, setting.train.class_names),
        steps=options.coarse_steps,
    )
    labels = jnp.arange(options.judged) % (setting.train.num_classes or 1)
    stages = [
        (coarse.sampler("ddim", guidance_scale=GUIDANCE), shape),
        (setting.model.sampler("ddim", guidance_scale=GUIDANCE), (height, width, channels)),
    ]
    reference, _ = judge(classifier, setting.test.images)
    table = table_of(
        "Coarse to fine, at equal cost",
        "",
        "steps",
        "seen as the class asked for",
        "Fréchet distance",
    )
    rows = []
    for cost in (5, 20):
        for name, chosen, strength, steps in (
            ("fine alone", stages[1:], 1.0, cost),
            ("coarse to fine, strength 0.5", stages, 0.5, round(cost / 0.75)),
            ("coarse to fine, strength 0.25", stages, 0.25, round(cost / 0.5)),
        ):
            drawn = np.asarray(
                sample_multiscale(
                    chosen,
                    strength=strength,
                    steps=steps,
                    count=options.judged,
                    key=jax.random.key(5),
                    cond=labels,
                )
            )
            features, classes = judge(classifier, drawn)
            hits = float(np.mean(classes == np.asarray(labels)))
            distance = frechet_distance(features, reference)
            results[f"cost {cost}, {name}"] = {"hits": hits, "distance": distance}
            table.add_row(name, str(steps), f"{hits:.1%}", f"{distance:.2f}")
            rows.append(jnp.asarray(drawn))
    picture(options, "multiscale", rows, 10)
    real = frechet_distance(judge(classifier, setting.train.images[: options.judged])[0], reference)
    table.add_row(f"{options.judged} real images", "", "", f"{real:.2f}")
    return table


def first_images(setting: Setting, options: Options) -> tuple[Array, Array]:
    """The first test images and their labels."""
    assert setting.test.labels is not None
    images = unit(setting.test.images[: options.count])
    return jnp.asarray(images), jnp.asarray(setting.test.labels[: options.count])


if __name__ == "__main__":
    main()
