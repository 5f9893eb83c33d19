"""The same model with another part."""

import copy
import dataclasses
from typing import Any, TypeVar

import equinox as eqx

from diffusion_eqx.config import SamplerConfig
from diffusion_eqx.models.base import AbstractDiffusionModel

_Model = TypeVar("_Model", bound=AbstractDiffusionModel)


def with_network(model: _Model, network: Any) -> _Model:
    """The same model with another network, such as the one that a training gives."""
    return eqx.tree_at(lambda m: m.denoiser.backbone, model, network)


def with_sampler(model: _Model, sampler: SamplerConfig) -> _Model:
    """The same model with another recommended sampler, which its file will name too.

    **Raises:** `ValueError` if the configuration refuses it.
    """
    changed = copy.copy(model)
    # A configuration is no leaf, and the classes of models are built from it alone.
    object.__setattr__(changed, "config", dataclasses.replace(model.config, sampler=sampler))
    return changed
