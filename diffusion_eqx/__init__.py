"""Diffusion models in Equinox whose samplers run natively, without Python.

    import diffusion_eqx as dx

gives every room (`dx.samplers`, `dx.guidance`, `dx.models`, …) and the names of every session. Each
is loaded when it is first used.
"""

import importlib
import importlib.metadata
from typing import TYPE_CHECKING, Any

# room: where it is found. A room's own names are imported from its face.
_ROOMS = (
    "compile_cache",
    "config",
    "data",
    "denoiser",
    "distillation",
    "editing",
    "evaluation",
    "exact",
    "guidance",
    "losses",
    "models",
    "nn",
    "parameterizations",
    "precision",
    "recipes",
    "samplers",
    "schedules",
    "testing",
    "training",
)

# The names of every session, and the room that each is from.
_NAMES = {
    "Denoiser": "denoiser",
    "Guided": "guidance",
    "cast": "precision",
    "load_model": "models",
    "read_record": "models",
    "sample": "samplers",
    "save_model": "models",
    "save_picture": "data",
    "train": "training",
    "use_all_cores": "samplers",
    "use_compile_cache": "compile_cache",
}

if TYPE_CHECKING:
    from diffusion_eqx import compile_cache as compile_cache
    from diffusion_eqx import config as config
    from diffusion_eqx import data as data
    from diffusion_eqx import denoiser as denoiser
    from diffusion_eqx import distillation as distillation
    from diffusion_eqx import editing as editing
    from diffusion_eqx import evaluation as evaluation
    from diffusion_eqx import exact as exact
    from diffusion_eqx import guidance as guidance
    from diffusion_eqx import losses as losses
    from diffusion_eqx import models as models
    from diffusion_eqx import nn as nn
    from diffusion_eqx import parameterizations as parameterizations
    from diffusion_eqx import precision as precision
    from diffusion_eqx import recipes as recipes
    from diffusion_eqx import samplers as samplers
    from diffusion_eqx import schedules as schedules
    from diffusion_eqx import testing as testing
    from diffusion_eqx import training as training
    from diffusion_eqx.compile_cache import use_compile_cache as use_compile_cache
    from diffusion_eqx.data import save_picture as save_picture
    from diffusion_eqx.denoiser import Denoiser as Denoiser
    from diffusion_eqx.guidance import Guided as Guided
    from diffusion_eqx.models import load_model as load_model
    from diffusion_eqx.models import read_record as read_record
    from diffusion_eqx.models import save_model as save_model
    from diffusion_eqx.precision import cast as cast
    from diffusion_eqx.samplers import sample as sample
    from diffusion_eqx.samplers import use_all_cores as use_all_cores
    from diffusion_eqx.training import train as train


def __getattr__(name: str) -> Any:
    if name in _NAMES:
        return getattr(importlib.import_module(f"diffusion_eqx.{_NAMES[name]}"), name)
    if name in _ROOMS:
        return importlib.import_module(f"diffusion_eqx.{name}")
    if name == "__version__":
        return importlib.metadata.version("diffusion-eqx")
    raise AttributeError(f"diffusion_eqx has no {name!r}; it has {', '.join(__dir__())}")


def __dir__() -> list[str]:
    return sorted([*_NAMES, *_ROOMS])
