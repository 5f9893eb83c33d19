"""Weights to begin with that another model has learnt."""

from pathlib import Path
from typing import Any, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from diffusion_eqx.models import AbstractDiffusionModel, load_model
from diffusion_eqx.nn import ClassEmbedding

ModelT = TypeVar("ModelT", bound=AbstractDiffusionModel)


def begin_from(model: ModelT, source: str | Path | AbstractDiffusionModel) -> ModelT:
    """A model with the network weights of another one, to train on from them.

    The networks must be alike but for their classes. If these differ in number, the rows of classes that
    both have are copied by number, as is the row that means "no class". Rows of new classes begin there.

    - `source`: a model, or the path of a model's file.

    **Raises:** `ValueError`, naming what differs, if the networks are not alike; as `load_model`.
    """
    other = source if isinstance(source, AbstractDiffusionModel) else load_model(source)
    backbone = _copied(model.denoiser.backbone, other.denoiser.backbone)
    return eqx.tree_at(lambda m: m.denoiser.backbone, model, backbone)


def _copied(network: Any, source: Any) -> Any:
    is_table = lambda node: isinstance(node, ClassEmbedding)  # noqa: E731
    ours, structure = jax.tree_util.tree_flatten_with_path(network, is_leaf=is_table)
    theirs, other_structure = jax.tree_util.tree_flatten_with_path(source, is_leaf=is_table)
    if len(ours) != len(theirs) or structure.num_nodes != other_structure.num_nodes:
        raise ValueError(
            "the two networks have different layers, so that weights of one cannot begin the other; give "
            "the model the configuration of the file, `diffusion-eqx info` shows it"
        )
    found, wrong = [], []
    for (path, own), (_, given) in zip(ours, theirs, strict=True):
        if isinstance(own, ClassEmbedding):
            found.append(eqx.tree_at(lambda c: c.table, own, _table(own.table, given.table)))
        elif eqx.is_array(own):
            if own.shape != given.shape:
                wrong.append(
                    f"{jax.tree_util.keystr(path)} has shape {own.shape}, in the source {given.shape}"
                )
            found.append(jnp.asarray(given, own.dtype))
        else:
            found.append(own)
    if wrong:
        raise ValueError(
            "the two networks are not alike: " + "; ".join(wrong[:5]) + ("; …" if wrong[5:] else "")
        )
    return jax.tree.unflatten(structure, found)


def _table(own: jax.Array, given: jax.Array) -> jax.Array:
    """The table of classes; its last row means "no class"."""
    if own.shape[1:] != given.shape[1:]:
        raise ValueError(
            f"the class tables have {own.shape[1]} and {given.shape[1]} features; they must be equal"
        )
    rows = np.broadcast_to(np.asarray(given[-1]), own.shape).copy()
    common = min(len(own), len(given)) - 1
    rows[:common] = np.asarray(given[:common])
    return jnp.asarray(rows, own.dtype)
