"""What run it is: the settings that decide what is learnt, as JSON."""

import dataclasses
import hashlib
import json
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from diffusion_eqx.config import TrainingConfig
from diffusion_eqx.data import Dataset, StreamDataset

# Settings that may change when a run is continued: they do not change what is learnt.
_FREE = (
    *("log_every", "checkpoint_every", "preview_every", "held_out_every", "on_divergence"),
    *("sharded", "accumulation", "rematerialize", "keep_checkpoints", "best_by", "best_is"),
)
# So many numbers of each array of weights are looked at.
_LOOKED_AT = 64


def describe_training(config: TrainingConfig) -> dict[str, Any]:
    """The settings of a training configuration that decide what is learnt."""
    settings = dataclasses.asdict(config) | {"warmup_steps": config.warmup}
    if config.rate_schedule != "cosine":
        # Nothing is planned for the last step, so that a run may be made longer.
        del settings["steps"]
    return {name: value for name, value in settings.items() if name not in _FREE}


def describe_value(value: Any) -> Any:
    """A part by its class and fields, and those of the parts within; arrays by a digest."""
    return _described(value, lambda array: _digest(array.tobytes()))


def describe_network(network: Any) -> dict[str, Any]:
    """A network by its class, its size, a digest of its structure and one of its first weights.

    Of the weights the signs count, which rounding on another device does not change.
    """
    arrays = [_plain(a) for a in jax.tree.leaves(eqx.filter(network, eqx.is_array))]
    structure = json.dumps(_described(network, lambda array: f"{array.dtype}{array.shape}"))
    signs = b"".join((array.ravel()[:_LOOKED_AT] > 0).tobytes() for array in arrays)
    return {
        "class": type(network).__name__,
        "arrays": len(arrays),
        "parameters": sum(array.size for array in arrays),
        "structure": _digest(structure.encode()),
        "weights": _digest(signs),
    }


def describe_data(data: Dataset) -> dict[str, Any]:
    """Size, shape and classes of a data set, and a digest of its labels and of some examples, if it gives
    the same ones whenever it is read.
    """
    labels = b""
    if data.labels is not None:
        labels = np.ascontiguousarray(data.labels, dtype=np.int64).tobytes()
    described = {"examples": len(data), "shape": list(data.shape), "classes": data.num_classes}
    if isinstance(data, StreamDataset) and not data.exact:
        # It gives other examples whenever it is read, and is the same data set nevertheless.
        return described
    # A batch of its own, so that other settings of the run do not change the digest.
    images = data.batches(min(64, len(data)), seed=0)[0]["images"]
    return {**described, "digest": _digest(labels + np.ascontiguousarray(images).tobytes())}


def _described(held: Any, by_array: Callable[[np.ndarray], Any]) -> Any:
    if held is None or isinstance(held, bool | int | float | str):
        return held
    if isinstance(held, jax.Array | np.ndarray):
        return by_array(_plain(held))
    if isinstance(held, tuple | list):
        return [_described(one, by_array) for one in held]
    if isinstance(held, dict):
        return {str(name): _described(one, by_array) for name, one in held.items()}
    if dataclasses.is_dataclass(held) and not isinstance(held, type):
        fields = {field.name: getattr(held, field.name, None) for field in dataclasses.fields(held)}
        described = {name: _described(one, by_array) for name, one in fields.items()}
        return {"class": type(held).__name__, **described}
    # A function by its name: its address differs from process to process.
    return getattr(held, "__qualname__", type(held).__name__)


def _plain(array: jax.Array | np.ndarray) -> np.ndarray:
    keys = jnp.issubdtype(array.dtype, jax.dtypes.prng_key)
    return np.asarray(jax.random.key_data(array) if keys else array)


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]
