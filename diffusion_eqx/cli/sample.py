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

    OUT ending in .png is a grid; ending in .npy, a float array (N, H, W, C) in [-1, 1].
    """

    model: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")]
    """A model file written by `diffusion-eqx train`."""
    out: Annotated[Path, tyro.conf.arg(aliases=["-o"], metavar="FILE")]
    """Where to write: FILE.png or FILE.npy."""
    count: Annotated[int, tyro.conf.arg(aliases=["-n"])] = 16
    """Number of images."""
    sampler: Literal["ddim", "ddpm"] = "ddim"
    """How to sample."""
    steps: int = 50
    """Denoising steps."""
    seed: int | None = None
    """Random seed, 0 … 4294967295; by default one is drawn and printed."""
    labels: tuple[int, ...] = ()
    """Classes, repeated over the images; none: unconditional, or all classes in turn if guided."""
    guidance_scale: float | None = None
    """Scale of classifier-free guidance; 1 is the plain conditional prediction."""
    eta: float = 0.0
    """DDIM's share of noise, 0 … 1."""
    temperature: float = 1.0
    """Scale of the noise of stochastic samplers."""
    columns: int | None = None
    """Columns of the grid; by default about square."""


def run(options: Sample) -> None:
    """Sample as the options say."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    from diffusion_eqx.data import image_grid, save_picture
    from diffusion_eqx.models import load_model

    if options.out.suffix not in (".png", ".npy"):
        raise ValueError(f"--out must end in .png or .npy; got {options.out}")
    if options.count < 1:
        raise ValueError(f"--count must be at least 1; got {options.count}")
    seed = secrets.randbits(32) if options.seed is None else options.seed
    if not 0 <= seed < 2**32:
        raise ValueError(f"--seed must be in 0 … {2**32 - 1}; got {seed}")
    model = load_model(options.model).model
    images = model.sample(
        options.count,
        options.sampler,
        options.steps,
        key=jax.random.key(seed),
        labels=_labels(options, model.num_classes, jnp),
        guidance_scale=options.guidance_scale,
        eta=options.eta,
        temperature=options.temperature,
    )
    if options.out.suffix == ".npy":
        options.out.parent.mkdir(parents=True, exist_ok=True)
        np.save(options.out, np.asarray(images))
    else:
        columns = options.columns or int(np.ceil(options.count**0.5))
        save_picture(options.out, image_grid(images, columns))
    print(f"wrote {options.out} (seed {seed})", file=sys.stderr)


def _labels(options: Sample, num_classes: int | None, jnp):
    if num_classes is None:
        if options.labels:
            raise ValueError("--labels needs a class-conditional model; this one is unconditional")
        return None
    chosen = options.labels
    if not chosen:
        if options.guidance_scale is None:
            return None
        chosen = tuple(range(num_classes))
    wrong = [label for label in chosen if not 0 <= label <= num_classes]
    if wrong:
        raise ValueError(
            f"--labels {wrong[0]} is none of 0 … {num_classes - 1} (or {num_classes}: no class)"
        )
    return jnp.asarray([chosen[i % len(chosen)] for i in range(options.count)], jnp.int32)
