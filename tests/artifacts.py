"""Small models and their artifacts, made once for all tests that need one."""

import functools
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import equinox as eqx
import jax
from diffusion_eqx_export import export_sampler

from diffusion_eqx.config import DDIMConfig, NoiseScheduleConfig, UNetBackboneConfig
from diffusion_eqx.models import DDIMModel, Record
from tests.perturbed import perturbed

RECORD = Record("DDIMModel", ema=True, training={"steps": 1})


def model_of(name: str, backbone: UNetBackboneConfig) -> DDIMModel:
    """A model of 8x6 images; its weights are random, but not at their start."""
    config = DDIMConfig(
        name=name,
        backbone=backbone,
        noise_schedule=NoiseScheduleConfig(schedule_type="cosine"),
        input_shape=(8, 6, 1),
        prediction_type="v_prediction",
    )
    model = DDIMModel(config, key=jax.random.key(0))
    noisy = perturbed(model.denoiser.backbone, key=jax.random.key(1), scale=0.05)
    return eqx.tree_at(lambda m: m.denoiser.backbone, model, noisy)


@functools.cache
def small_model(num_classes: int | None = 4) -> DDIMModel:
    """Two levels, one with attention."""
    backbone = UNetBackboneConfig(
        hidden_dims=(8, 16),
        attention_resolutions=(4,),
        time_embedding_dim=16,
        num_classes=num_classes,
    )
    return model_of("small", backbone)


@functools.cache
def tiny_model() -> DDIMModel:
    """One level, no attention: compiles faster, for tests in which the sampler is what matters."""
    backbone = UNetBackboneConfig(hidden_dims=(8,), time_embedding_dim=8, num_classes=4)
    return model_of("tiny", backbone)


@functools.cache
def folder() -> TemporaryDirectory:
    """Where the artifacts lie until the tests' process ends."""
    return TemporaryDirectory(prefix="artifact-")


def export_tiny(path: Path, sampler: Any = "ddim", **options: Any) -> Path:
    """Write an artifact of `tiny_model` with programs for one image on CPUs."""
    options = {"platforms": ("cpu",), "batch_sizes": (1,), "steps": 10, **options}
    export_sampler(tiny_model(), path, sampler=sampler, **options)
    return path


@functools.cache
def tiny_artifact() -> Path:
    """An artifact of guided DDIM, with the least programs."""
    return export_tiny(Path(folder().name) / "tiny.safetensors", guidance="cfg")


@functools.cache
def small_artifact(sampler: str = "ddim", num_classes: int | None = 4) -> Path:
    """An artifact with programs for 1 and 4 images, guided if the model has classes."""
    path = Path(folder().name) / f"{sampler.replace(':', '-')}-{num_classes}.safetensors"
    export_sampler(
        small_model(num_classes),
        path,
        sampler=sampler,
        guidance=None if num_classes is None else "cfg",
        batch_sizes=(1, 4),
        steps=10,
        record=RECORD,
    )
    return path
