"""Editing: inversion, interpolation, SDEdit, inpainting, editing by inversion, and coarse to fine.

Prints what can be measured of each; a classifier of real images is the judge. Leaves pictures and
results.json in `--out`.
"""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import jax
import numpy as np
import tyro
from jax import Array
from rich.console import Console
from rich.table import Table
from small_model import ModelOptions, Setting, prepare, save_rows, train_judge, train_model

import diffusion_eqx as dx

GUIDANCE = 2.0
Results = dict[str, Any]

# The last step of its grid begins at the least noise there is, so that it can be inverted best.
INVERTIBLE = dx.samplers.DDIMSampler(grid=dx.samplers.LogSNRGrid())

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
    dx.use_all_cores()
    options = tyro.cli(Options, description=__doc__)
    setting = prepare(options.model)
    classifier = train_judge(setting.train)
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


def picture(options: Options, name: str, rows: Sequence[np.ndarray | Array], columns: int) -> None:
    """Write rows of images as a picture."""
    images = np.concatenate([row[:columns] for row in rows])
    save_rows(options.out / f"{name}.png", images, columns)


def inversion(setting: Setting, options: Options, results: Results) -> Table:
    """How far the image sampled from the inverted noise is from the image."""
    images, labels = first_images(setting, options)
    model = setting.model
    counts = (1, 5, 15)
    table = table_of(
        "Inversion and back: largest (mean) error of a pixel",
        "steps",
        *(f"{n} iterations" for n in counts),
    )
    for steps in (options.steps // 5, options.steps):
        cells = []
        for n in counts:
            noise = dx.editing.ddim_invert(
                model, images, sampler=INVERTIBLE, steps=steps, labels=labels, iterations=n
            )
            back = model.sample_from(noise, INVERTIBLE, steps=steps, labels=labels)
            error = np.abs(back - images)
            results[f"inversion, {steps} steps, {n} iterations"] = float(error.max())
            cells.append(f"{float(error.max()):.2e} ({float(error.mean()):.1e})")
        table.add_row(str(steps), *cells)
    return table


def interpolation(setting: Setting, options: Options, results: Results) -> Table:
    """From images of one class to images of another, without any class given."""
    first, second = (setting.of_class(c, 4) for c in (SOURCE, TARGET))
    found = dx.editing.interpolate(
        setting.model, first, second, 8, sampler=INVERTIBLE, steps=options.steps, iterations=15
    )
    path = np.asarray(found)
    picture(options, "interpolation", [path[:, i] for i in range(4)], 8)
    table = table_of("Interpolation", "largest error at the ends", "change of a step, largest of 7")
    ends = max(np.abs(path[0] - first).max(), np.abs(path[-1] - second).max())
    change = np.mean(np.abs(np.diff(path, axis=0)), axis=(1, 2, 3, 4))
    whole = np.mean(np.abs(second - first))
    results["interpolation, ends"] = float(ends)
    table.add_row(f"{float(ends):.2e}", f"{float(change.max() / whole):.2f} of the whole")
    return table


def strengths(setting: Setting, options: Options, results: Results) -> Table:
    """SDEdit towards the images' own classes."""
    images, labels = first_images(setting, options)
    table = table_of("SDEdit", "strength", "mean change of a pixel")
    rows = [images]
    for strength in (0.2, 0.4, 0.6, 0.8, 1.0):
        edited = dx.editing.sdedit(
            setting.model,
            images,
            strength,
            sampler="ddim",
            steps=options.steps,
            labels=labels,
            guidance=GUIDANCE,
            key=jax.random.key(2),
        )
        rows.append(np.asarray(edited))
        change = float(np.abs(rows[-1] - images).mean())
        results[f"sdedit, strength {strength}"] = change
        table.add_row(f"{strength:.1f}", f"{change:.3f}")
    picture(options, "sdedit", rows, min(10, len(images)))
    return table


def inpainting(setting: Setting, options: Options, results: Results) -> Table:
    """The middle filled in, by replacement alone and by RePaint; the seam is its border."""
    images, labels = first_images(setting, options)
    size = images.shape[1]
    edge = round(2 * size / 7)
    mask = np.zeros((1, size, size, 1), bool)
    mask[:, edge : size - edge, edge : size - edge] = True
    table = table_of(
        "Inpainting", "", "gradient across the seam, of the images'", "error inside", "known kept"
    )
    rows = [images, np.where(mask, -1.0, images)]
    for name, resample, jump in (("replacement", 1, 1), ("RePaint", 10, 1), ("RePaint", 10, 5)):
        found = dx.editing.inpaint(
            setting.model,
            images,
            mask,
            resample=resample,
            jump=jump,
            sampler="ddpm",
            steps=options.steps,
            labels=labels,
            key=jax.random.key(3),
        )
        filled = np.asarray(found)
        rows.append(filled)
        ratio = seam(filled, edge) / seam(images, edge)
        inside = float(np.sum(np.abs(filled - images)) / np.sum(mask) / len(images))
        kept = bool(np.all(mask | (filled == images)))
        label = name if resample == 1 else f"{name}, {resample} times, jumps of {jump}"
        results[f"inpainting, {label}"] = {"seam": ratio, "error": inside, "kept": kept}
        table.add_row(label, f"{ratio:.2f}", f"{inside:.3f}", "exactly" if kept else "no")
    picture(options, "inpainting", rows, min(10, len(images)))
    return table


def seam(images: np.ndarray, edge: int) -> float:
    """The mean absolute difference of neighbours across the border of the middle square."""
    inside = slice(edge, images.shape[1] - edge)
    differences = []
    for turned in (images, images.swapaxes(1, 2)):
        for before in (edge - 1, images.shape[1] - edge - 1):
            across = turned[:, before + 1, inside] - turned[:, before, inside]
            differences.append(np.mean(np.abs(across)))
    return float(np.mean(differences))


def editing(
    setting: Setting, classifier: dx.evaluation.Classifier, options: Options, results: Results
) -> Table:
    """From one class to another, beside images of the target class drawn from scratch."""
    images = setting.of_class(SOURCE, options.count)
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
        steps=options.steps,
        labels=TARGET,
        guidance=GUIDANCE,
        key=jax.random.key(4),
    )
    rows = {"drawn from scratch": np.asarray(drawn)}
    for strength in (0.5, 0.7, 1.0):
        edited = dx.editing.edit_by_inversion(
            setting.model,
            images,
            source_labels=SOURCE,
            target_labels=TARGET,
            strength=strength,
            sampler=INVERTIBLE,
            steps=options.steps,
            guidance=GUIDANCE,
            iterations=5,
        )
        rows[f"edited, strength {strength}"] = np.asarray(edited)
    for name, row in rows.items():
        pairs = zip(row, images, strict=True)
        likeness = np.mean([np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in pairs])
        hits = np.mean(dx.evaluation.judge(classifier, row)[1] == TARGET)
        results[f"editing, {name}"] = {"hits": float(hits), "likeness": float(likeness)}
        table.add_row(name, f"{hits:.0%}", f"{likeness:.2f}")
    picture(options, "editing", [images, *rows.values()], min(10, len(images)))
    return table


def multiscale(
    setting: Setting, classifier: dx.evaluation.Classifier, options: Options, results: Results
) -> Table:
    """Coarse to fine, beside the fine model alone at the same cost.

    A step of the coarse model, with a quarter of the pixels, costs a quarter.
    """
    height, width, channels = setting.model.config.input_shape
    images = dx.data.to_unit_range(setting.train.images)
    small = images.reshape(-1, height // 2, 2, width // 2, 2, channels).mean((2, 4))
    coarse = train_model(
        dx.data.ImageDataset(small, setting.train.labels, setting.train.class_names),
        steps=options.coarse_steps,
    )
    labels = np.arange(options.judged) % setting.classes
    models = [coarse, setting.model]
    reference, _ = dx.evaluation.judge(classifier, setting.test.images)
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
            ("fine alone", models[1:], 1.0, cost),
            ("coarse to fine, strength 0.5", models, 0.5, round(cost / 0.75)),
            ("coarse to fine, strength 0.25", models, 0.25, round(cost / 0.5)),
        ):
            found = dx.editing.sample_multiscale(
                chosen,
                options.judged,
                strength=strength,
                sampler="ddim",
                steps=steps,
                labels=labels,
                guidance=GUIDANCE,
                key=jax.random.key(5),
            )
            drawn = np.asarray(found)
            features, classes = dx.evaluation.judge(classifier, drawn)
            hits = float(np.mean(classes == labels))
            distance = dx.evaluation.frechet_distance(features, reference)
            results[f"cost {cost}, {name}"] = {"hits": hits, "distance": distance}
            table.add_row(name, str(steps), f"{hits:.1%}", f"{distance:.2f}")
            rows.append(drawn)
    picture(options, "multiscale", rows, 10)
    features, _ = dx.evaluation.judge(classifier, setting.train.images[: options.judged])
    real = dx.evaluation.frechet_distance(features, reference)
    table.add_row(f"{options.judged} real images", "", "", f"{real:.2f}")
    return table


def first_images(setting: Setting, options: Options) -> tuple[np.ndarray, np.ndarray]:
    """The first test images and their labels."""
    assert setting.test.labels is not None
    images = dx.data.to_unit_range(setting.test.images[: options.count])
    return images, setting.test.labels[: options.count]


if __name__ == "__main__":
    main()
