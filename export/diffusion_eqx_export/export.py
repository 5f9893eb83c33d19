"""`export_sampler`: a model and a way of sampling it, as one artifact."""

import hashlib
import importlib.metadata
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from diffusion_eqx.config import to_json
from diffusion_eqx.models import SavedModel
from diffusion_eqx.models.base import Guidance
from diffusion_eqx.models.files import model_arrays
from diffusion_eqx.samplers import AbstractSampler, BrownianNoise, find_sampler, sample
from diffusion_eqx_export.container import FORMAT, FORMAT_VERSION, dtype_name, write_container
from diffusion_eqx_export.lowering import PLATFORMS, STABLEHLO_VERSION
from diffusion_eqx_export.programs import Argument, Program, SamplerPrograms
from diffusion_eqx_export.settings import cpu_device, pinned, seed_key, to_32_bits

_REFERENCE_STEPS = 10
_REFERENCE_SEED = 7
_REFERENCE_COUNT = 2


def export_sampler(
    saved: SavedModel,
    path: str | Path,
    *,
    sampler: str = "ddim",
    steps: int = 50,
    guidance_scale: float | None = 2.0,
    guidance: Guidance = "cfg",
    grid: str | None = None,
    brownian: bool = False,
    platforms: Sequence[str] = ("cpu", "cuda"),
    batch_sizes: Sequence[int] = (1, 8, 64),
    **parameters: float,
) -> None:
    """Write a sampler of a saved model as an artifact for the native program (see FORMAT.md).

    `sampler`, `grid` and `guidance` by their names in the library. `steps`, `guidance_scale` and the
    sampler's own `parameters` (`eta`, `temperature`, …) are defaults: all can be chosen again at run time.
    `guidance_scale=None` leaves guidance out, at half the cost of a step; unconditional models have none
    anyway. `brownian`: the noise of one path for all numbers of steps. `platforms`: any of cpu, cuda, rocm,
    tpu; `batch_sizes`: the numbers of images for which programs are made.

    The file does not depend on the settings of JAX in the environment: see `settings.pinned`.

    **Raises:** `ValueError` for names that are unknown and values out of range; `NotExportable` if a
    native plugin could not run the programs, or if JAX has no CPU backend here.
    """
    model = to_32_bits(saved.model)
    with pinned():
        _export(
            saved._replace(model=model),
            Path(path),
            sampler=sampler,
            steps=steps,
            guidance_scale=guidance_scale,
            guidance=guidance,
            grid=grid,
            brownian=brownian,
            platforms=platforms,
            batch_sizes=batch_sizes,
            parameters=parameters,
        )


def _export(
    saved: SavedModel,
    path: Path,
    *,
    sampler: str,
    steps: int,
    guidance_scale: float | None,
    guidance: Guidance,
    grid: str | None,
    brownian: bool,
    platforms: Sequence[str],
    batch_sizes: Sequence[int],
    parameters: dict[str, float],
) -> None:
    model, ema, training = saved
    _check(platforms, batch_sizes)
    cpu = cpu_device()
    guided = guidance_scale is not None and model.num_classes is not None
    described = _parameters(
        total_steps=model.config.noise_schedule.num_timesteps,
        steps=steps,
        guidance_scale=guidance_scale if guided else None,
        own=_own_parameters(sampler, parameters),
    )
    arrays, static = eqx.partition(model, eqx.is_array)
    treedef = jax.tree.structure(arrays)
    noise = BrownianNoise() if brownian else None

    def make_sampler(weights: list[jax.Array], values: dict[str, Any]) -> AbstractSampler:
        rebuilt = eqx.combine(jax.tree.unflatten(treedef, weights), static)
        chosen = {name: value for name, value in values.items() if name != "steps"}
        return rebuilt.sampler(sampler, guidance=guidance, grid=grid, noise=noise, **chosen)

    weights = model_arrays(model)
    image_shape = model.config.input_shape
    programs = SamplerPrograms(
        make_sampler,
        weights=weights,
        parameters={
            n: np.dtype({"I32": "int32", "F32": "float32"}[p["dtype"]])
            for n, p in described.items()
        },
        conditional=model.num_classes is not None,
        sample_shape=model.config.sample_shape,
        image_shape=image_shape,
    )

    tensors: dict[str, np.ndarray] = {}
    entries = [
        {
            "platform": platform,
            "batch": batch,
            **{
                role: _add_program(tensors, f"{role}.{platform}.{batch}", lowered(batch, platform))
                for role, lowered in (
                    ("init", programs.init),
                    ("step", programs.step),
                    ("finish", programs.finish),
                )
            },
        }
        for platform in platforms
        for batch in sorted(set(batch_sizes))
    ]
    tensors = _weights(weights, entries) | tensors
    labels = _labels(model.num_classes, training)
    defaults = {name: p["default"] for name, p in described.items() if name != "steps"}
    # Samplers without a grid take as many steps as they need: the default allows them.
    adaptive = not find_sampler(sampler).grid
    reference_steps = steps if adaptive else _REFERENCE_STEPS
    reference, drawn = _reference(
        make_sampler(list(weights.values()), defaults),
        model.config.sample_shape,
        labels,
        reference_steps,
        cpu=cpu,
        # Where a step is accepted or not by a hair, devices part, as far as the solver's own error goes.
        tolerance=5e-2 if adaptive else 5e-5,
    )
    tensors |= drawn
    manifest = {
        "name": model.config.name,
        "model": {
            "class": type(model).__name__,
            "parameters": model.num_parameters,
            "ema": ema,
            "training": training,
            "config": json.loads(to_json(model.config)),
        },
        "producer": {
            "diffusion_eqx": importlib.metadata.version("diffusion-eqx"),
            "jax": jax.__version__,
            "jaxlib": importlib.metadata.version("jaxlib"),
            "stablehlo": STABLEHLO_VERSION,
        },
        "sample": {"sampler": sampler, "shape": list(image_shape), "range": [-1.0, 1.0]},
        "parameters": described,
        "labels": labels,
        "state": [_any_batch(argument) for argument in programs.state(1)],
        "programs": entries,
        "reference": {**reference, "parameters": defaults},
        "tensors": {name: _sha256(tensor.tobytes()) for name, tensor in tensors.items()},
    }
    text = json.dumps(manifest, separators=(",", ":"), allow_nan=False)
    metadata = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "manifest": text,
        "manifest_sha256": _sha256(text.encode()),
    }
    write_container(path, tensors, metadata)


def _check(platforms: Sequence[str], batch_sizes: Sequence[int]) -> None:
    unknown = sorted(set(platforms) - set(PLATFORMS))
    if unknown or not platforms:
        raise ValueError(f"platforms must be some of {', '.join(PLATFORMS)}; got {list(platforms)}")
    if not batch_sizes or min(batch_sizes) < 1:
        raise ValueError(f"batch_sizes must be positive numbers; got {list(batch_sizes)}")


# Range and meaning of what may be chosen at run time (FORMAT.md, 3.3).
_RANGES: dict[str, tuple[float, float, str]] = {
    "guidance_scale": (0.0, 100.0, "strength of guidance; 1 is the plain conditional prediction"),
    "eta": (0.0, 1.0, "share of fresh noise in each step; 0 is deterministic"),
    "temperature": (0.0, 10.0, "scale of the fresh noise"),
    "churn": (0.0, 1000.0, "noise added before each step, over all steps"),
    "snr": (0.0, 1.0, "how far the corrector moves"),
}


def _own_parameters(sampler: str, given: dict[str, float]) -> dict[str, float]:
    """The run-time numbers of a sampler, with the defaults that were given."""
    own = find_sampler(sampler).parameters
    unknown = sorted(given.keys() - own.keys())
    if unknown:
        allowed = ", ".join(["steps", "guidance_scale", *own])
        raise ValueError(
            f"{', '.join(unknown)}: the sampler {sampler} has no such number; it has {allowed}"
        )
    return {**own, **given}


def _parameters(
    *, total_steps: int, steps: int, guidance_scale: float | None, own: dict[str, float]
) -> dict[str, dict[str, Any]]:
    """The manifest's `parameters`: steps, the scale of guidance if there is one, the sampler's own."""
    described = {"steps": _parameter("steps", "I32", steps, 1, total_steps, "denoising steps")}
    scale = {} if guidance_scale is None else {"guidance_scale": guidance_scale}
    for name, default in {**scale, **own}.items():
        low, high, about = _RANGES[name]
        described[name] = _parameter(name, "F32", default, low, high, about)
    return described


def _parameter(
    name: str, dtype: str, default: float, low: float, high: float, about: str
) -> dict[str, Any]:
    if not low <= default <= high:
        raise ValueError(f"{name} must be between {low} and {high}; got {default}")
    return {"dtype": dtype, "default": default, "min": low, "max": high, "about": about}


def _labels(num_classes: int | None, training: dict[str, Any]) -> dict[str, Any] | None:
    if num_classes is None:
        return None
    names = training.get("class_names") or [str(label) for label in range(num_classes)]
    return {"count": num_classes, "null": num_classes, "names": list(names)}


def _weights(weights: dict[str, jax.Array], entries: list[dict[str, Any]]) -> dict[str, np.ndarray]:
    """Those arrays that some program takes: an encoder, for example, is of no use to a sampler."""
    taken = {
        argument["name"]
        for entry in entries
        for role in ("init", "step", "finish")
        for argument in entry[role]["inputs"]
        if argument["role"] == "weight"
    }
    return {f"weights/{name}": np.asarray(a) for name, a in weights.items() if name in taken}


def _add_program(tensors: dict[str, np.ndarray], name: str, program: Program) -> dict[str, Any]:
    """Store a program, once if another has the same bytes, and describe it for the manifest."""
    bytecode = np.frombuffer(program.lowered.bytecode, np.uint8)
    twins = (
        other for other, t in tensors.items() if t.dtype == np.uint8 and np.array_equal(t, bytecode)
    )
    tensor = next(twins, f"programs/{name}")
    tensors[tensor] = bytecode
    return {
        "tensor": tensor,
        "inputs": [{**a.manifest(), "donated": a.donated} for a in program.inputs],
        "outputs": [a.manifest() for a in program.outputs],
    }


def _reference(
    sampler: AbstractSampler,
    shape: tuple[int, ...],
    labels: dict[str, Any] | None,
    steps: int,
    *,
    cpu: jax.Device,
    tolerance: float,
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """A few images as Python draws them, for `verify` to compare with (FORMAT.md, 3.6)."""
    key = seed_key(_REFERENCE_SEED)
    chosen = None if labels is None else [i % labels["count"] for i in (3, 5)]
    cond = None if chosen is None else jnp.asarray(chosen, jnp.int32)
    with jax.default_device(cpu):
        noise = sampler.init(shape, steps, key=key, count=_REFERENCE_COUNT).x
        image = sample(sampler, shape, count=_REFERENCE_COUNT, steps=steps, key=key, cond=cond)
    if not np.isfinite(image).all():
        raise ValueError(
            f"the sampler's images are not finite in {steps} steps; an adaptive sampler needs more steps "
            "to arrive"
        )
    reference = {
        "seed": _REFERENCE_SEED,
        "steps": steps,
        "labels": chosen,
        "count": _REFERENCE_COUNT,
        "tolerance": {
            "cpu": {"noise": 0.0, "image": tolerance},
            "other": {"noise": 1e-5, "image": max(1e-2, tolerance)},
        },
    }
    return reference, {"reference/noise": np.asarray(noise), "reference/image": np.asarray(image)}


def _any_batch(argument: Argument) -> dict[str, Any]:
    return {
        "name": argument.name,
        "dtype": dtype_name(np.dtype(argument.spec.dtype)),
        "shape": [-1, *argument.spec.shape[1:]],
    }


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
