"""Inverse problems: damaged images restored by a model that never saw the damage.

Four measurements, each with noise: a hole, a blur, and the mean of every 2x2 or 4x4 pixels. Prints the PSNR
of each method beside that of a baseline, and leaves the pictures and results.json in `--out`. The rows of a
picture are the images, what was measured, the baseline, and the methods.
"""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from jax import Array
from rich.console import Console
from rich.table import Table
from small_model import ModelOptions, Setting, prepare, save_rows

import diffusion_eqx as dx


@dataclasses.dataclass(frozen=True)
class Options:
    """Restore damaged images by sampling what they may have been."""

    model: Annotated[ModelOptions, tyro.conf.arg(name="")]
    out: Path = Path("inverse_problems")
    """Folder of the pictures."""
    count: int = 16
    """Images to restore."""
    steps: int = 25
    """Steps of sampling."""
    noise_std: float = 0.05
    """Standard deviation of the measurement's noise."""


Operator = Callable[[Array], Array]


@dataclasses.dataclass(frozen=True)
class Problem:
    """A linear measurement, and a function of it: what one would do without a model."""

    name: str
    operator: Operator
    baseline: Operator


def hole(size: int) -> Problem:
    """All but a square in the middle, of 3/7 of the side; the baseline is black there."""
    known = np.ones((size, size, 1), np.float32)
    edge = round(2 * size / 7)
    known[edge : size - edge, edge : size - edge] = 0.0
    return Problem("inpainting", lambda x: x * known, lambda y: y - (1.0 - known))


def blur(size: int, width: float) -> Problem:
    """A Gaussian blur of standard deviation `width` pixels; the baseline is the blurred image."""
    place = np.arange(size)
    weights = np.exp(-0.5 * ((place[:, None] - place) / width) ** 2)
    weights = jnp.asarray(weights / weights.sum(1, keepdims=True), jnp.float32)

    def operator(x: Array) -> Array:
        return jnp.einsum("ij,bjkc,lk->bilc", weights, x, weights)

    return Problem("deblurring", operator, lambda y: y)


def pooled(size: int, factor: int) -> Problem:
    """The mean of every factor x factor pixels; the baseline enlarges it by bicubic interpolation."""
    small = size // factor

    def operator(x: Array) -> Array:
        return x.reshape(len(x), small, factor, small, factor, -1).mean((2, 4))

    def bicubic(y: Array) -> Array:
        return jax.image.resize(y, (len(y), size, size, y.shape[-1]), "cubic")

    return Problem(f"{factor}x super-resolution", operator, bicubic)


def main() -> None:
    """Run the example."""
    dx.use_all_cores()
    options = tyro.cli(Options, description=__doc__)
    setting = prepare(options.model)
    images = jnp.asarray(dx.data.to_unit_range(setting.test.images[: options.count]))
    size = images.shape[1]
    table = Table(title="PSNR in dB, and its gain over the baseline")
    for column in ("problem", "baseline", "DPS", "ΠGDM", "MMPS"):
        table.add_column(column)
    results: dict[str, dict[str, float]] = {}
    for problem in (hole(size), blur(size, size / 20), pooled(size, 2), pooled(size, 4)):
        clean = problem.operator(images)
        noise = jax.random.normal(jax.random.key(7), clean.shape)
        value = clean + options.noise_std * noise
        baseline = jnp.clip(problem.baseline(value), -1.0, 1.0)
        restored = restore(setting, problem.operator, value, options)
        base = psnr(baseline, images)
        found = {name: psnr(x, images) for name, x in restored.items()}
        results[problem.name] = {"baseline": base, **found}
        row = [f"{value:.2f} ({value - base:+.2f})" for value in found.values()]
        table.add_row(problem.name, f"{base:.2f}", *row)
        shown = jax.image.resize(value, images.shape, "nearest")
        rows = np.concatenate([r[:10] for r in (images, shown, baseline, *restored.values())])
        name = problem.name.replace(" ", "_")
        save_rows(options.out / f"{name}.png", rows, min(10, options.count))
    (options.out / "results.json").write_text(json.dumps(results, indent=1))
    Console().print(table)


def restore(
    setting: Setting, operator: Operator, value: Array, options: Options
) -> dict[str, np.ndarray]:
    """One posterior sample for each measurement, by each method."""
    # Pixels are between -1 and 1; that the prediction is off by 0.3 is a middling guess.
    scale = float(np.sqrt(value[0].size)) / 0.3
    methods: dict[str, dx.guidance.AbstractPosteriorGuidance] = {
        "DPS": dx.guidance.DPSGuidance(operator, scale),
        "ΠGDM": dx.guidance.PseudoInverseGuidance(operator, options.noise_std, data_std=0.5),
        "MMPS": dx.guidance.MomentMatchingGuidance(operator, options.noise_std),
    }
    drawn = {
        name: setting.model.sample(
            len(value),
            "ddim",
            steps=options.steps,
            guidance=guidance,
            cond={"measurement": value},
            key=jax.random.key(1),
        )
        for name, guidance in methods.items()
    }
    return {name: np.asarray(images) for name, images in drawn.items()}


def psnr(found: np.ndarray | Array, expected: Array) -> float:
    """The peak signal-to-noise ratio of each image, in dB, averaged."""
    pairs = zip(np.asarray(found), np.asarray(expected), strict=True)
    return float(np.mean([dx.evaluation.peak_signal_to_noise_ratio(a, b) for a, b in pairs]))


if __name__ == "__main__":
    main()
