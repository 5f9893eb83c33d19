"""Optimisers by name, and the learning rate along a run."""

import functools
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from diffusion_eqx.config import OPTIMIZERS, TrainingConfig
from diffusion_eqx.training.parts import MatrixAxes, decayed, is_axes, matrix_axes


class _Numbers(NamedTuple):
    """What an optimiser needs of a configuration."""

    optimizer: str
    rate_schedule: str
    steps: int
    warmup: int
    decay_start: int
    learning_rate: float
    b1: float
    b2: float
    weight_decay: float
    max_grad_norm: float | None

    @classmethod
    def of(cls, config: TrainingConfig) -> "_Numbers":
        return cls(*(getattr(config, name) for name in cls._fields))


def build_optimizer(config: TrainingConfig) -> optax.GradientTransformation:
    """The optimiser that a configuration names, under a clipped gradient norm.

    The same settings give the same object: an optimiser is part of the program of a step, and another one
    would be compiled anew.
    """
    return _build(_Numbers.of(config))


def learning_rate(config: TrainingConfig) -> optax.Schedule:
    """The learning rate of a configuration by the number of updates done, as a function."""
    return _rate(_Numbers.of(config))


def evaluation_weights(config: TrainingConfig) -> Callable[[optax.OptState, Any], Any] | None:
    """How the weights to draw samples with follow from the optimiser's state and the weights that it moves.

    None where they are the same, as for all but schedule-free methods: these take gradients between the
    weights that they move and those that count.
    """
    if config.optimizer != "schedule_free":
        return None
    return optax.contrib.schedule_free_eval_params


@functools.lru_cache(maxsize=32)
def _build(numbers: _Numbers) -> optax.GradientTransformation:
    rate = _rate(numbers)
    if numbers.optimizer == "schedule_free":
        # Its averaging must be outermost: `schedule_free_eval_params` reads the state of no chain.
        inner = _clipped(numbers, _adamw(rate, numbers, b1=0.0))
        return optax.contrib.schedule_free(inner, rate, b1=numbers.b1)
    return _clipped(numbers, _named(rate, numbers))


def _clipped(
    numbers: _Numbers, optimizer: optax.GradientTransformation
) -> optax.GradientTransformation:
    if numbers.max_grad_norm is None:
        return optimizer
    return optax.chain(optax.clip_by_global_norm(numbers.max_grad_norm), optimizer)


def _named(rate: optax.Schedule, numbers: _Numbers) -> optax.GradientTransformation:
    decay = numbers.weight_decay
    match numbers.optimizer:
        case "adamw":
            return _adamw(rate, numbers, b1=numbers.b1)
        case "lion":
            mask = _decay_mask if decay else None
            return optax.lion(rate, b1=numbers.b1, b2=numbers.b2, weight_decay=decay, mask=mask)
        case "sgd":
            sgd = optax.sgd(rate, momentum=numbers.b1, nesterov=True)
            return optax.chain(_decay_of(decay), sgd) if decay else sgd
        case "muon":
            return _muon(rate, numbers)
    raise ValueError(
        f"unknown optimizer {numbers.optimizer!r}; choose one of {', '.join(OPTIMIZERS)}"
    )


def _adamw(rate: optax.Schedule, numbers: _Numbers, *, b1: float) -> optax.GradientTransformation:
    if numbers.weight_decay == 0.0:
        return optax.adam(rate, b1=b1, b2=numbers.b2)
    return optax.adamw(
        rate, b1=b1, b2=numbers.b2, weight_decay=numbers.weight_decay, mask=_decay_mask
    )


def _decay_of(decay: float) -> optax.GradientTransformation:
    return optax.add_decayed_weights(decay, mask=_decay_mask)


def _muon(rate: optax.Schedule, numbers: _Numbers) -> optax.GradientTransformation:
    """Muon for matrices and kernels, Adam's rule for what is neither (Jordan et al. 2024)."""
    return optax.contrib.muon(
        rate,
        adam_b1=numbers.b1,
        adam_b2=numbers.b2,
        weight_decay=numbers.weight_decay,
        weight_decay_mask=_decay_mask if numbers.weight_decay else None,
        muon_weight_dimension_numbers=_dimensions,
        # Updates as large as AdamW's, so that one learning rate serves both (Liu et al. 2025, eq. 4).
        consistent_rms=0.2,
    )


def _dimensions(parameters: Any) -> Any:
    """Which axes of each matrix its product sums over and gives; None for what is no matrix."""

    def named(axes: MatrixAxes | None) -> optax.contrib.MuonDimensionNumbers | None:
        return None if axes is None else optax.contrib.MuonDimensionNumbers(*axes)

    return jax.tree.map(named, matrix_axes(parameters), is_leaf=is_axes)


def _rate(numbers: _Numbers) -> optax.Schedule:
    warm = numbers.warmup

    def rise(count):
        return jnp.minimum(1.0, (count + 1.0) / (warm + 1.0)) if warm else 1.0

    match numbers.rate_schedule:
        case "cosine":
            return optax.warmup_cosine_decay_schedule(
                init_value=0.0,
                peak_value=numbers.learning_rate,
                warmup_steps=warm,
                decay_steps=numbers.steps,
            )
        case "constant":
            return lambda count: numbers.learning_rate * rise(count)
        case "inverse_sqrt":
            # Karras et al. 2024, eq. 67.
            start = numbers.decay_start
            return lambda count: (
                numbers.learning_rate * rise(count) / jnp.sqrt(jnp.maximum(count / start, 1.0))
            )
    raise ValueError(f"unknown learning_rate_schedule {numbers.rate_schedule!r}")


def _decay_mask(parameters):
    """As `decayed`; a function, since optax would call a mask that is a module, modules being callable."""
    mask = decayed(parameters)
    if not any(jax.tree.leaves(mask)):
        warnings.warn(
            "weight_decay changes nothing: it acts on linear layers and convolutions of this library and "
            "of Equinox, and the network has none. Give make_recipe an optimizer of your own",
            stacklevel=2,
        )
    return mask
