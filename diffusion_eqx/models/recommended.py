"""How a model is drawn unless told otherwise."""

import copy
import dataclasses
from typing import TypeVar

from diffusion_eqx.config import SamplerConfig
from diffusion_eqx.models.base import AbstractDiffusionModel

_Model = TypeVar("_Model", bound=AbstractDiffusionModel)


def with_sampler(model: _Model, sampler: SamplerConfig) -> _Model:
    """The same model with another recommended sampler, which its file will name too.

    **Raises:** `ValueError` if the configuration refuses it.
    """
    changed = copy.copy(model)
    # A configuration is no leaf, and the classes of models are built from it alone.
    object.__setattr__(changed, "config", dataclasses.replace(model.config, sampler=sampler))
    return changed
