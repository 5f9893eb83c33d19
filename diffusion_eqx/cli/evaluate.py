"""`diffusion-eqx evaluate`: how good a model, or a set of pictures, is."""

import contextlib
import dataclasses
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from diffusion_eqx.cli.class_names import check_class_names
from diffusion_eqx.cli.computing import prepare
from diffusion_eqx.cli.drawing import check_seed, draw, tell_idle_guidance
from diffusion_eqx.cli.judging import judge_of

if TYPE_CHECKING:
    import numpy as np

    from diffusion_eqx.data import ImagesInMemory
    from diffusion_eqx.evaluation import ImageClassifier, Reference
    from diffusion_eqx.models import AbstractDiffusionModel


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evaluate:
    """Judge images by real ones: those that a model draws, or those of a folder or a file.

    Fréchet and kernel distance, precision and recall, density and coverage are of the features of a
    classifier; it also tells the share of images that show the class asked for.

    For a model, every number of the sampler is an option by its name, such as --eta 0.5.
    """

    images: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL|FOLDER|FILE")]
    """A model file; a folder of pictures, whose folders are classes of the data; or a .npy file of images,
    as `sample` writes it."""
    data: Annotated[str, tyro.conf.arg(metavar="NAME|FOLDER")]
    """The real images: fashion-mnist, digits, emoji, or a folder of pictures."""
    size: tuple[int, int] | int | None = None
    """Height and width at which folders of pictures are read, or one number for both; by default those of
    the images that are judged."""
    labels: Annotated[Path | None, tyro.conf.arg(metavar="FILE.csv")] = None
    """A table with the path of each real picture and the name of its class, in place of class folders."""
    broken: Annotated[str | None, tyro.conf.arg(metavar="{refuse,skip}")] = None
    """Whether real pictures that cannot be read are refused or left out; by default they are refused."""
    data_dir: Path | None = None
    """Where the data set's files are, if not where its package puts them."""
    reference: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """Statistics of the real images: read if the file is there, else made and written."""
    classifier: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """What judges: a file written by `diffusion-eqx train-classifier`; by default a classifier that is
    trained on the data's classes now, always alike on one machine."""
    count: Annotated[int | None, tyro.conf.arg(aliases=["-n"])] = None
    """Number of images to draw, 1000 by default, of all classes in turn."""
    sampler: str | None = None
    """How to sample: a name that `diffusion-eqx samplers` lists; by default the model's recommended one."""
    steps: int | None = None
    """Number of steps; by default the model's, or as many as there are timesteps."""
    guidance: float | None = None
    """Scale of classifier-free guidance; by default none."""
    seed: int | None = None
    """Random seed of what is drawn, 0 … 4294967295; by default 0."""
    bits_count: int | None = None
    """Tell also how many bits for each dimension the model needs for so many of the real images, picked at
    random; those that it has not seen tell more. By default none."""
    bits_steps: int | None = None
    """Steps of the solver for it; more are more exact."""
    out: Annotated[Path | None, tyro.conf.arg(aliases=["-o"], metavar="FILE")] = None
    """Where to write the figures: FILE.json."""


_COUNT, _LEAST, _LEAST_BITS = 1000, 6, 2
# What is best, and what a measure says.
_MEANINGS = {
    "frechet_distance": ("0", "features as Gaussians; biased upwards for few images"),
    "kernel_distance": ("0", "unbiased, so it may be a little below 0"),
    "precision": ("1", "images that look real"),
    "recall": ("1", "real images that could be drawn"),
    "density": ("1", "how close to real images; may exceed 1"),
    "coverage": ("1", "real images that have one like them"),
    "accuracy": ("1", "images of the class asked for"),
    "bits_per_dim": ("0", "bits for each dimension of a real image"),
    "bits_error": ("0", "the standard error of it"),
}


def run(options: Evaluate, numbers: dict[str, float]) -> None:
    """Evaluate as the options say."""
    if options.out is not None and options.out.suffix != ".json":
        raise ValueError(f"--out must end in .json; got {options.out}")
    check_seed(options.seed or 0)

    from diffusion_eqx.evaluation import ClassifierFeatures, evaluate
    from diffusion_eqx.models import load_model

    prepare()
    # What is wrong is said before a classifier is trained or an image is drawn.
    if options.images.is_dir() or options.images.suffix == ".npy":
        _refuse_drawing(options, numbers)
        model, data = None, _real_images(options, None)
        images, labels = _given_images(options, data)
    else:
        model = load_model(options.images)
        _check_drawing(options, model, numbers)
        data = _real_images(options, model)
        images, labels = None, None
    known = _known_reference(options, data)
    judge = _judge(options, data, model)
    features = ClassifierFeatures(judge)
    reference = _reference(options, data, features, known)
    if model is not None:
        images, labels = _drawn_images(options, model, numbers)
    assert images is not None
    measures = evaluate(images, reference, features, labels, judge)
    if model is not None and options.bits_count is not None:
        measures |= _bits(options, model, data)
    _show(options, measures, len(images), reference)
    if options.out is not None:
        record = _record(options, measures, len(images), reference)
        if model is not None:
            record["drawing"] = _drawing(options) | numbers
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(record, indent=2, ensure_ascii=False) + "\n")
        print(f"wrote {options.out}", file=sys.stderr)


def _record(
    options: Evaluate, measures: dict[str, float], count: int, reference: "Reference"
) -> dict[str, Any]:
    return {
        "images": {"source": str(options.images), "count": count},
        "measures": measures,
        "reference": {
            "data": options.data,
            "count": reference.count,
            "data_digest": reference.data_digest,
            "features": reference.feature_name,
            "preprocessing": dataclasses.asdict(reference.preprocessing),
            "version": reference.version,
        },
    }


def _drawing(options: Evaluate) -> dict[str, Any]:
    return {
        "sampler": options.sampler,
        "steps": options.steps,
        "guidance": options.guidance,
        "seed": options.seed or 0,
    }


def _bits(
    options: Evaluate, model: "AbstractDiffusionModel", data: "ImagesInMemory"
) -> dict[str, float]:
    import jax
    import numpy as np

    from diffusion_eqx.evaluation import bits_per_dim

    count = min(options.bits_count or 0, len(data))
    picked = np.random.default_rng(options.seed or 0).permutation(len(data))[:count]
    labels = None if model.num_classes is None or data.labels is None else data.labels[picked]
    steps = {} if options.bits_steps is None else {"steps": options.bits_steps}
    found = bits_per_dim(
        model, data.images[picked], key=jax.random.key(options.seed or 0), labels=labels, **steps
    )
    return {"bits_per_dim": float(found.mean), "bits_error": float(found.standard_error)}


def _check_drawing(
    options: Evaluate, model: "AbstractDiffusionModel", numbers: dict[str, float]
) -> None:
    drawing: dict[str, Any] = {"steps": options.steps, "guidance": options.guidance, **numbers}
    tell_idle_guidance(model.plan(options.sampler, **drawing))
    if options.bits_count is not None and tuple(model.config.sample_shape) != tuple(
        model.config.input_shape
    ):
        raise ValueError(
            f"--bits-count is for models of pixels, and {options.images} denoises latents: leave it out"
        )
    if options.bits_count is not None and options.bits_count < _LEAST_BITS:
        raise ValueError(
            f"--bits-count must be at least {_LEAST_BITS}, whose spread is known; got {options.bits_count}"
        )
    if options.count is not None and options.count < _LEAST:
        raise ValueError(
            f"--count must be at least {_LEAST}, the neighbours of an image and itself; got {options.count}"
        )


def _refuse_drawing(options: Evaluate, numbers: dict[str, float]) -> None:
    given = [
        f"--{name.replace('_', '-')}"
        for name in ("count", "sampler", "steps", "guidance", "seed", "bits_count", "bits_steps")
        if getattr(options, name) is not None
    ] + [f"--{name.replace('_', '-')}" for name in numbers]
    if given:
        raise ValueError(
            f"{given[0]} is for drawing from a model, and {options.images} holds images; leave it out"
        )


def _real_images(options: Evaluate, model: "AbstractDiffusionModel | None") -> "ImagesInMemory":
    from diffusion_eqx.cli.data import check_picture_options, load_dataset
    from diffusion_eqx.evaluation import load_reference

    size, channels = options.size, None
    if model is not None:
        height, width, channels = model.config.input_shape
        size = size or (height, width)
    elif size is None and options.reference is not None and options.reference.exists():
        height, width, channels = load_reference(options.reference).preprocessing.image_shape
        size = height, width
    elif size is None and options.images.suffix == ".npy":
        size = _size_of(options.images)
    if size is None and Path(options.data).is_dir():
        raise ValueError(
            f"at which size shall the pictures of {options.data} be read? Give --size HEIGHT WIDTH"
        )
    check_picture_options(
        options.data, size=options.size, labels=options.labels, broken=options.broken
    )
    data = load_dataset(
        options.data, size or (1, 1), channels, options.data_dir, options.labels, options.broken
    )
    if model is not None:
        check_class_names(data.class_names, options.images, options.data)
    if model is not None and tuple(data.shape) != tuple(model.config.input_shape):
        raise ValueError(
            f"{options.images} draws images of shape {tuple(model.config.input_shape)}; those of "
            f"{options.data} have shape {tuple(data.shape)}: name the data that the model was trained on"
        )
    return data


def _size_of(path: Path) -> tuple[int, int] | None:
    """(height, width) of the images in a .npy file; None if it does not hold images."""
    import numpy as np

    shape = np.load(path, mmap_mode="r").shape
    return (shape[1], shape[2]) if len(shape) == 4 else None


def _judge(
    options: Evaluate, data: "ImagesInMemory", model: "AbstractDiffusionModel | None"
) -> "ImageClassifier":
    if options.classifier is None and model is not None and data.num_classes is not None:
        _check_classes(options, model, data.num_classes)  # Before a classifier is trained.
    judge, classes = judge_of(data, options.data, options.classifier)
    if model is not None:
        _check_classes(options, model, classes)
    return judge


def _check_classes(options: Evaluate, model: "AbstractDiffusionModel", classes: int) -> None:
    if model.num_classes not in (None, classes):
        name = options.classifier or options.data
        raise ValueError(f"{options.images} knows {model.num_classes} classes; {name} {classes}")


def _known_reference(options: Evaluate, data: "ImagesInMemory") -> "Reference | None":
    """The statistics in the file of --reference, if it is there, which must be of the data."""
    from diffusion_eqx.evaluation import load_reference

    if options.reference is None or not options.reference.exists():
        return None
    reference = load_reference(options.reference)
    with _explaining(options):
        reference.check_data(data)
    return reference


def _reference(
    options: Evaluate, data: "ImagesInMemory", features: Any, known: "Reference | None"
) -> "Reference":
    from diffusion_eqx.evaluation import make_reference, save_reference

    if known is not None:
        with _explaining(options):
            known.check(features)
        return known
    reference, path = make_reference(features, data), options.reference
    if path is not None:
        save_reference(path, reference)
        print(f"wrote {path} ({reference.count} images of {options.data})", file=sys.stderr)
    return reference


@contextlib.contextmanager
def _explaining(options: Evaluate) -> Iterator[None]:
    """Say with which options a reference fits that does not."""
    try:
        yield
    except ValueError as error:
        remedy = "give the --data, --size and --classifier that it was made with"
        if options.classifier is None:
            remedy += (
                "; without --classifier one is trained, whose last bits differ between machines"
            )
        raise ValueError(
            f"{options.reference}: {error}. On the command line: {remedy}; or name another --reference"
        ) from error


def _drawn_images(
    options: Evaluate, model: "AbstractDiffusionModel", numbers: dict[str, float]
) -> "tuple[np.ndarray, np.ndarray | None]":
    import jax
    import numpy as np

    count = _COUNT if options.count is None else options.count
    classes = model.num_classes
    labels = None if classes is None else np.arange(count, dtype=np.int32) % classes
    images = draw(
        model,
        count,
        options.sampler,
        steps=options.steps,
        labels=labels,
        guidance=options.guidance,
        key=jax.random.key(options.seed or 0),
        **numbers,
    )
    return images, labels


def _given_images(
    options: Evaluate, data: "ImagesInMemory"
) -> "tuple[np.ndarray, np.ndarray | None]":
    """The images of a folder or a file, and their labels, if its folders are classes of the data."""
    import numpy as np

    from diffusion_eqx.cli.data import load_dataset

    height, width, channels = data.shape
    if options.images.suffix == ".npy":
        return np.load(options.images, allow_pickle=False), None
    pictures = load_dataset(str(options.images), (height, width), channels)
    if pictures.labels is None:
        return pictures.images, None
    unknown = sorted(set(pictures.class_names) - set(data.class_names))
    if unknown:
        print(
            f"{options.images}: {unknown[0]!r} is no class of {options.data}, so classes are not judged",
            file=sys.stderr,
        )
        return pictures.images, None
    places = np.array([data.class_names.index(name) for name in pictures.class_names], np.int32)
    return pictures.images, places[pictures.labels]


def _show(
    options: Evaluate, measures: dict[str, float], count: int, reference: "Reference"
) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("measure", "value", "best", "what it says")
    table.title = f"{count} images of {options.images} against {reference.count} of {options.data}"
    for name, value in measures.items():
        best, meaning = _MEANINGS[name]
        table.add_row(name, f"{value:.4g}", best, meaning)
    Console().print(table)
