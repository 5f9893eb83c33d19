"""`diffusion-eqx sample`: pictures from a model file."""

import dataclasses
import secrets
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from diffusion_eqx.cli.class_names import class_numbers
from diffusion_eqx.cli.computing import prepare
from diffusion_eqx.cli.drawing import check_seed, draw, tell_idle_guidance

if TYPE_CHECKING:
    from diffusion_eqx.models import AbstractDiffusionModel


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sample:
    """Draw images from a model file.

    OUT ending in .png is a grid; in .npy, a float array (N, H, W, C) in [−1, 1]; in .gif, an
    animation of the grid while it is denoised.

    Every number of the sampler and the guidance is an option by its name, such as --eta 0.5 or
    --guidance-scale 3; `diffusion-eqx samplers` lists them.
    """

    model: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")]
    """A model file, as `diffusion-eqx train` writes it."""
    out: Annotated[Path, tyro.conf.arg(aliases=["-o"], metavar="FILE")]
    """Where to write: FILE.png, FILE.npy or FILE.gif."""
    count: Annotated[int, tyro.conf.arg(aliases=["-n"])] = 16
    """Number of images."""
    sampler: str | None = None
    """How to sample: a name that `diffusion-eqx samplers` lists; by default the model's recommended one."""
    grid: str | None = None
    """At which levels: a name that `diffusion-eqx samplers` lists; by default the sampler's own."""
    steps: int | None = None
    """Number of steps; by default the model's, or as many as there are timesteps."""
    seed: int | None = None
    """Random seed, 0 … 4294967295; by default one is drawn and printed."""
    label: Annotated[tuple[str, ...], tyro.conf.arg(aliases=["--labels"])] = ()
    """Classes by name or number, repeated over the images; by default no class, or all classes in turn if
    guided."""
    guidance: str | None = None
    """cfg, cfg++ or apg; auto, which needs --weak-model; classifier, which needs --classifier."""
    weak_model: Path | None = None
    """For autoguidance: a smaller or less trained model of the same data."""
    classifier: Path | None = None
    """For classifier guidance: a file written by `diffusion-eqx train-classifier`."""
    threshold: bool = False
    """Limit predictions by dynamic thresholding rather than by clipping."""
    brownian: bool = False
    """Read noise off one Brownian path, so that an image keeps its shape when the steps change."""
    every: int = 1
    """For animations: steps between pictures."""
    columns: int | None = None
    """Columns of the grid; by default about square."""
    zoom: int = 1
    """How often each pixel of a picture is repeated, along both axes."""


def run(options: Sample, numbers: dict[str, float]) -> None:
    """Sample as the options say."""
    if options.out.suffix not in (".png", ".npy", ".gif"):
        raise ValueError(f"--out must end in .png, .npy or .gif; got {options.out}")
    seed = secrets.randbits(32) if options.seed is None else options.seed
    check_seed(seed)

    import jax
    import numpy as np

    from diffusion_eqx.data import image_grid, save_animation, save_picture
    from diffusion_eqx.models import load_model
    from diffusion_eqx.samplers import BrownianNoise

    prepare()
    model = load_model(options.model)
    guidance, classes = _guidance(options, model, numbers)
    how: dict[str, Any] = {
        "steps": options.steps,
        "guidance": guidance,
        "grid": options.grid,
        "noise": BrownianNoise() if options.brownian else None,
        **numbers,
    }
    tell_idle_guidance(model.plan(options.sampler, **how))
    drawing: dict[str, Any] = {
        "labels": _labels(options, classes, guided=guidance is not None),
        "key": jax.random.key(seed),
        **how,
    }
    columns = options.columns or int(np.ceil(options.count**0.5))
    if options.out.suffix == ".gif":
        snapshots = model.trajectory(options.count, options.sampler, every=options.every, **drawing)
        frames = [image_grid(images, columns) for images in snapshots]
        save_animation(options.out, frames, zoom=options.zoom)
    else:
        images = draw(model, options.count, options.sampler, **drawing)
        if options.out.suffix == ".npy":
            options.out.parent.mkdir(parents=True, exist_ok=True)
            np.save(options.out, images)
        else:
            save_picture(options.out, images, columns=columns, zoom=options.zoom)
    print(f"wrote {options.out} (seed {seed})", file=sys.stderr)


def _guidance(
    options: Sample, model: "AbstractDiffusionModel", numbers: dict[str, float]
) -> tuple[Any, int | None]:
    """The guidance for `model.plan`, and the number of classes that labels are of.

    A scale alone asks for the model's own guidance.
    """
    from diffusion_eqx.guidance import Autoguidance, ClassifierGuidance, DynamicThresholding
    from diffusion_eqx.models import load_classifier, load_model

    name, classes = options.guidance, model.num_classes
    if (name == "auto") != (options.weak_model is not None):
        raise ValueError("--guidance auto and --weak-model need each other")
    if (name == "classifier") != (options.classifier is not None):
        raise ValueError("--guidance classifier and --classifier need each other")
    if name is None and "guidance_scale" in numbers:
        name = "cfg"
    chosen: Any = name
    if options.weak_model is not None:
        weak = load_model(options.weak_model)
        _check_same_noise(str(options.weak_model), weak.config.noise_schedule, model)
        chosen = Autoguidance(weak.denoiser)
    elif options.classifier is not None:
        classifier = load_classifier(options.classifier).classifier
        config = classifier.config
        if config.input_shape != model.config.input_shape:
            raise ValueError(
                f"{options.classifier} is for images of shape {config.input_shape}; the model's have shape "
                f"{model.config.input_shape}"
            )
        if classes not in (None, config.num_classes):
            raise ValueError(
                f"{options.classifier} knows {config.num_classes} classes, the model {classes}"
            )
        _check_same_noise(str(options.classifier), config.noise_schedule, model)
        chosen, classes = ClassifierGuidance(classifier), config.num_classes
    if options.threshold:
        limit = DynamicThresholding()
        chosen = (limit,) if chosen is None else (*model.guidance(chosen), limit)
    return chosen, classes


def _check_same_noise(name: str, noise_schedule: Any, model: "AbstractDiffusionModel") -> None:
    own = model.config.noise_schedule
    if dataclasses.replace(noise_schedule, name=own.name) != own:
        raise ValueError(
            f"{name} was trained for another noise than the model: {noise_schedule}, not {own}"
        )


def _labels(options: Sample, num_classes: int | None, *, guided: bool) -> list[int] | None:
    chosen = class_numbers(options.label, options.model, num_classes)
    if not chosen:
        if num_classes is None or not guided:
            return None
        chosen = tuple(range(num_classes))
    return [chosen[i % len(chosen)] for i in range(options.count)]
