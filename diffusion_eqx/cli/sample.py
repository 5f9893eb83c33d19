"""`diffusion-eqx sample`: pictures from a model file."""

import dataclasses
import secrets
import sys
from pathlib import Path
from typing import Annotated, Literal

import tyro


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sample:
    """Draw images from a model file.

    OUT ending in .png is a grid; in .npy, a float array (N, H, W, C) in [-1, 1]; in .gif, an animation of
    the grid while it is denoised.
    """

    model: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")]
    """A model file written by `diffusion-eqx train`."""
    out: Annotated[Path, tyro.conf.arg(aliases=["-o"], metavar="FILE")]
    """Where to write: FILE.png, FILE.npy or FILE.gif."""
    count: Annotated[int, tyro.conf.arg(aliases=["-n"])] = 16
    """Number of images."""
    sampler: str = "ddim"
    """How to sample: a name that `diffusion-eqx samplers` lists."""
    grid: str | None = None
    """At which times: a name that `diffusion-eqx samplers` lists; by default the sampler's own."""
    steps: int = 50
    """Denoising steps."""
    seed: int | None = None
    """Random seed, 0 … 4294967295; by default one is drawn and printed."""
    labels: tuple[int, ...] = ()
    """Classes, repeated over the images; none: unconditional, or all classes in turn if guided."""
    guidance_scale: float | None = None
    """Strength of guidance; 1 is the plain conditional prediction."""
    guidance: Literal["cfg", "cfg++", "apg", "auto", "classifier"] = "cfg"
    """Classifier-free guidance, CFG++, adaptive projected guidance, autoguidance by --weak-model, or
    guidance by --classifier."""
    guidance_rescale: float = 0.0
    """Pull the guided prediction's contrast back to the conditional one's, 0 … 1 (cfg only)."""
    weak_model: Path | None = None
    """For autoguidance: a smaller or less trained model of the same data."""
    classifier: Path | None = None
    """For classifier guidance: a file written by `diffusion-eqx train-classifier`."""
    threshold: bool = False
    """Limit predictions by dynamic thresholding rather than by clipping."""
    eta: float | None = None
    """Share of fresh noise, 0 … 1, for samplers that have it."""
    temperature: float | None = None
    """Scale of the noise, for stochastic samplers."""
    churn: float | None = None
    """Noise added before each step, over all steps, for `edm`."""
    snr: float | None = None
    """How far the corrector moves, for `predictor_corrector`."""
    brownian: bool = False
    """Read noise off one Brownian path, so that an image keeps its shape when steps change."""
    every: int = 1
    """For animations: steps between pictures."""
    columns: int | None = None
    """Columns of the grid; by default about square."""


def run(options: Sample) -> None:
    """Sample as the options say."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    from diffusion_eqx.data import image_grid, save_animation, save_picture
    from diffusion_eqx.models import load_model
    from diffusion_eqx.samplers import sample, trajectory

    if options.out.suffix not in (".png", ".npy", ".gif"):
        raise ValueError(f"--out must end in .png, .npy or .gif; got {options.out}")
    if options.count < 1:
        raise ValueError(f"--count must be at least 1; got {options.count}")
    seed = secrets.randbits(32) if options.seed is None else options.seed
    if not 0 <= seed < 2**32:
        raise ValueError(f"--seed must be in 0 … {2**32 - 1}; got {seed}")
    model = load_model(options.model).model
    total = model.config.noise_schedule.num_timesteps
    if not 1 <= options.steps <= total:
        raise ValueError(f"--steps must be between 1 and {total}; got {options.steps}")
    guide = _guide(options, model)
    classes = model.num_classes if guide is None else guide.config.num_classes
    labels = _labels(options, classes, guide is not None, jnp)
    call = {
        "shape": model.config.sample_shape,
        "count": options.count,
        "steps": options.steps,
        "key": jax.random.key(seed),
        "cond": None if model.num_classes is None else labels,
    }
    columns = options.columns or int(np.ceil(options.count**0.5))
    sampler = _sampler(options, model, guide, labels)
    if options.out.suffix == ".gif":
        snapshots = trajectory(sampler, every=options.every, **call)
        save_animation(options.out, [image_grid(images, columns) for images in snapshots])
    else:
        images = np.asarray(sample(sampler, **call))
        if not np.isfinite(images).all():
            raise ArithmeticError(
                "some images are not finite: an adaptive sampler needs more --steps to arrive, any other "
                "has met numbers that the model cannot handle"
            )
        if options.out.suffix == ".npy":
            options.out.parent.mkdir(parents=True, exist_ok=True)
            np.save(options.out, images)
        else:
            save_picture(options.out, image_grid(images, columns))
    print(f"wrote {options.out} (seed {seed})", file=sys.stderr)


def _guide(options: Sample, model):
    """The classifier that guides, if one does."""
    from diffusion_eqx.models import load_classifier

    if options.guidance != "classifier":
        if options.classifier is not None:
            raise ValueError("--classifier needs --guidance classifier")
        return None
    if options.classifier is None:
        raise ValueError("--guidance classifier needs --classifier")
    guide = load_classifier(options.classifier).classifier
    if guide.config.input_shape != model.config.input_shape:
        raise ValueError(
            f"{options.classifier} is for images of shape {guide.config.input_shape}; the model's have "
            f"shape {model.config.input_shape}"
        )
    if model.num_classes not in (None, guide.config.num_classes):
        raise ValueError(
            f"{options.classifier} knows {guide.config.num_classes} classes, the model "
            f"{model.num_classes}"
        )
    _check_same_noise(str(options.classifier), guide.config.noise_schedule, model)
    return guide


def _check_same_noise(name: str, noise_schedule, model) -> None:
    own = model.config.noise_schedule
    if dataclasses.replace(noise_schedule, name=own.name) != own:
        raise ValueError(
            f"{name} was trained for another noise than the model: {noise_schedule}, not {own}"
        )


def _sampler(options: Sample, model, guide, labels):
    import equinox as eqx

    from diffusion_eqx.guidance import Autoguidance, ClassifierGuidance
    from diffusion_eqx.models import load_model
    from diffusion_eqx.samplers import BrownianNoise

    scale = 1.0 if options.guidance_scale is None else options.guidance_scale
    plain = eqx.nn.inference_mode(model.denoiser)
    if options.guidance_rescale and options.guidance != "cfg":
        raise ValueError("--guidance-rescale needs --guidance cfg")
    if options.weak_model is not None and options.guidance != "auto":
        raise ValueError("--weak-model needs --guidance auto")
    if guide is not None:
        guided = ClassifierGuidance(plain, guide, scale, labels)
        denoiser = model.limited(guided, threshold=options.threshold)
    elif options.guidance == "auto":
        if options.weak_model is None:
            raise ValueError("--guidance auto needs --weak-model")
        weak = load_model(options.weak_model).model
        _check_same_noise(str(options.weak_model), weak.config.noise_schedule, model)
        guided = Autoguidance(plain, eqx.nn.inference_mode(weak.denoiser), scale)
        denoiser = model.limited(guided, threshold=options.threshold)
    else:
        denoiser = model.guided(
            options.guidance_scale,
            options.guidance,
            rescale=options.guidance_rescale,
            threshold=options.threshold,
        )
    given = {name: getattr(options, name) for name in ("eta", "temperature", "churn", "snr")}
    return model.sampler_over(
        denoiser,
        options.sampler,
        grid=options.grid,
        noise=BrownianNoise() if options.brownian else None,
        **{name: value for name, value in given.items() if value is not None},
    )


def _labels(options: Sample, num_classes: int | None, by_classifier: bool, jnp):
    if num_classes is None:
        if options.labels:
            raise ValueError(
                "--labels needs a class-conditional model, and this one is unconditional; or guide it by a "
                "classifier"
            )
        return None
    chosen = options.labels
    if not chosen:
        if options.guidance_scale is None and not by_classifier:
            return None
        chosen = tuple(range(num_classes))
    # A model knows "no class", a classifier does not.
    largest = num_classes - 1 if by_classifier else num_classes
    wrong = [label for label in chosen if not 0 <= label <= largest]
    if wrong:
        extra = "" if by_classifier else f" (or {num_classes}: no class)"
        raise ValueError(f"--labels {wrong[0]} is none of 0 … {num_classes - 1}{extra}")
    return jnp.asarray([chosen[i % len(chosen)] for i in range(options.count)], jnp.int32)
