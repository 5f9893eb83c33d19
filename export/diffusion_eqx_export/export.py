"""`export_sampler`: a model and a way of sampling it, as one artifact."""

import dataclasses
import hashlib
import importlib.metadata
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import numpy as np

from diffusion_eqx.config import to_json
from diffusion_eqx.guidance import guidance_of
from diffusion_eqx.models import AbstractDiffusionModel, GuidanceLike, Plan, Record, model_arrays
from diffusion_eqx.samplers import (
    AbstractGrid,
    AbstractNoise,
    AbstractSampler,
    with_numbers,
)
from diffusion_eqx_export.container import FORMAT, FORMAT_VERSION, dtype_name, write_container
from diffusion_eqx_export.errors import NotExportable
from diffusion_eqx_export.lowering import PLATFORMS, STABLEHLO_VERSION
from diffusion_eqx_export.parameters import describe
from diffusion_eqx_export.programs import Argument, Program, SamplerPrograms
from diffusion_eqx_export.reference import draw_reference
from diffusion_eqx_export.settings import cpu_device, pinned, to_32_bits


def export_sampler(
    model: AbstractDiffusionModel,
    path: str | Path,
    *,
    sampler: str | AbstractSampler | None = None,
    guidance: GuidanceLike = None,
    steps: int | None = None,
    grid: AbstractGrid | str | None = None,
    noise: AbstractNoise | None = None,
    platforms: Sequence[str] = ("cpu", "cuda"),
    batch_sizes: Sequence[int] = (1, 8, 64),
    record: Record | None = None,
    **numbers: float,
) -> None:
    """Write a model and a way of sampling it as an artifact for the native program (FORMAT.md).

    `steps` and every number that the sampler and the guidance declare are defaults: the native program
    can be told others. The file does not depend on JAX's settings in the environment.

    - `sampler`, `guidance`, `steps`, `grid`, `noise`, `numbers`: as in `model.plan`. Without `guidance`
      a step costs half, and none can be chosen later.
    - `platforms`: any of cpu, cuda, rocm, tpu.
    - `batch_sizes`: the numbers of images for which programs are made.
    - `record`: what `read_record` gives for the model's file: class names, and whether its weights are
      averaged.

    **Raises:** `ValueError` for names that are unknown, values out of range and parts that do not go
    together; `NotExportable` if a native plugin could not run the programs, if the sampler or the
    guidance needs more than labels, or if JAX has no CPU backend here.
    """
    _check(platforms, batch_sizes)
    model, sampler, guidance, grid, noise = to_32_bits((model, sampler, guidance, grid, noise))
    with pinned():
        cpu = cpu_device()
        plan = model.plan(
            sampler, steps=steps, guidance=guidance, grid=grid, noise=noise, **numbers
        )
        name = sampler if isinstance(sampler, str) else type(sampler).__name__
        if sampler is None:
            name = model.config.recommended.name
        tensors, manifest = _artifact(model, plan, name, platforms, batch_sizes, record, cpu)
    text = json.dumps(manifest, separators=(",", ":"), allow_nan=False)
    metadata = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "manifest": text,
        "manifest_sha256": _sha256(text.encode()),
    }
    write_container(path, tensors, metadata)


def _artifact(
    model: AbstractDiffusionModel,
    plan: Plan,
    sampler_name: str,
    platforms: Sequence[str],
    batch_sizes: Sequence[int],
    record: Record | None,
    cpu: Any,
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The tensors and the manifest."""
    _check_condition(plan)
    labels = _labels(model.num_classes, plan, record)
    described = describe(plan)
    weights, make_plan = _separated(plan, model_arrays(model))
    image_shape = model.config.input_shape
    programs = SamplerPrograms(
        make_plan,
        weights=weights,
        parameters={
            n: np.dtype({"I32": "int32", "F32": "float32"}[p["dtype"]])
            for n, p in described.items()
        },
        conditional=labels is not None,
        shape=plan.shape,
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
    reference, drawn = draw_reference(plan, labels, described, cpu)
    tensors |= drawn
    manifest = {
        "name": model.config.name,
        "model": {
            "class": type(model).__name__,
            "parameters": model.num_parameters,
            "ema": False if record is None else record.ema,
            "training": {} if record is None else record.training,
            "config": json.loads(to_json(model.config)),
        },
        "producer": {
            "diffusion_eqx": importlib.metadata.version("diffusion-eqx"),
            "jax": jax.__version__,
            "jaxlib": importlib.metadata.version("jaxlib"),
            "stablehlo": STABLEHLO_VERSION,
        },
        "sample": {"sampler": sampler_name, "shape": list(image_shape), "range": [-1.0, 1.0]},
        "parameters": described,
        "labels": labels,
        "state": [_any_batch(argument) for argument in programs.state(1)],
        "programs": entries,
        "reference": reference,
        "tensors": {name: _sha256(tensor.tobytes()) for name, tensor in tensors.items()},
    }
    return tensors, manifest


def _check(platforms: Sequence[str], batch_sizes: Sequence[int]) -> None:
    unknown = sorted(set(platforms) - set(PLATFORMS))
    if unknown or not platforms:
        raise ValueError(f"platforms must be some of {', '.join(PLATFORMS)}; got {list(platforms)}")
    if not batch_sizes or min(batch_sizes) < 1:
        raise ValueError(f"batch_sizes must be positive numbers; got {list(batch_sizes)}")


def _check_condition(plan: Plan) -> None:
    """**Raises:** `NotExportable` if some guidance takes more than the programs can be given."""
    for guidance in guidance_of(plan.denoiser):
        if guidance.takes:
            names = " and ".join(f"cond[{name!r}]" for name in guidance.takes)
            raise NotExportable(
                f"{type(guidance).__name__} takes {names}, and programs of format 1 can be given labels "
                "and nothing else; draw with it in Python, or leave it out"
            )


def _labels(num_classes: int | None, plan: Plan, record: Record | None) -> dict[str, Any] | None:
    """The manifest's `labels`.

    **Raises:** `NotExportable` if no integer stands for "no class"; `ValueError` if the record names
    another number of classes.
    """
    if num_classes is None:
        return None
    null = plan.denoiser.null
    if np.shape(null) != () or not np.issubdtype(np.asarray(null).dtype, np.integer):
        raise NotExportable(
            "the model has classes, but its denoiser has no integer `null` that stands for no class; give "
            f"one, as in Denoiser(..., null={num_classes})"
        )
    names = () if record is None else record.class_names
    if names and len(names) != num_classes:
        raise ValueError(
            f"the record names {len(names)} classes, but the model has {num_classes}; give the record of "
            "this model"
        )
    names = names or tuple(str(label) for label in range(num_classes))
    return {"count": num_classes, "null": int(np.asarray(null)), "names": list(names)}


def _separated(plan: Plan, known: dict[str, jax.Array]) -> tuple[dict[str, jax.Array], Any]:
    """The arrays of a plan by name, each once, and the function that puts them and numbers into it.

    An array of the model has its name in the model's file, `known`. Others are named by their place.
    """
    arrays, static = eqx.partition(plan, eqx.is_array)
    leaves, treedef = jax.tree_util.tree_flatten_with_path(arrays)
    names = {id(array): name for name, array in known.items()}
    weights: dict[str, jax.Array] = {}
    order = []
    for path, leaf in leaves:
        name = names.setdefault(id(leaf), jax.tree_util.keystr(path, simple=True, separator="."))
        weights[name] = leaf
        order.append(name)
    places = {name: place for place, name in enumerate(weights)}

    def make_plan(given: list[Any], chosen: dict[str, Any]) -> Plan:
        filled = jax.tree.unflatten(treedef, [given[places[name]] for name in order])
        rebuilt = eqx.combine(filled, static)
        values = {name: value for name, value in chosen.items() if name != "steps"}
        parts = with_numbers((rebuilt.sampler, rebuilt.denoiser), values)
        return dataclasses.replace(rebuilt, sampler=parts[0], denoiser=parts[1])

    return weights, make_plan


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


def _any_batch(argument: Argument) -> dict[str, Any]:
    return {
        "name": argument.name,
        "dtype": dtype_name(np.dtype(argument.spec.dtype)),
        "shape": [-1, *argument.spec.shape[1:]],
    }


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
