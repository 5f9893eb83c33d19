"""Weights to begin with that another model has learnt."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from diffusion_eqx.models import AbstractDiffusionModel, load_model, read_record, with_network
from diffusion_eqx.nn import ClassEmbedding

ModelT = TypeVar("ModelT", bound=AbstractDiffusionModel)


def begin_from(
    model: ModelT, source: str | Path | AbstractDiffusionModel, class_names: Sequence[str] = ()
) -> ModelT:
    """A model with the network weights of another one, to train on from them.

    The networks must have the same layers of the same sizes, but for the number of classes. Classes are
    matched by name where both models' names are known, else by number. A class that only the new model
    has begins with the weights that mean "no class".

    - `source`: a model, or the path of a model's file, which names its classes.
    - `class_names`: the names of the new model's classes; () if they have none.

    **Raises:** `ValueError`, naming what differs, if the networks are not alike; as `load_model`.
    """
    if isinstance(source, AbstractDiffusionModel):
        other, known = source, ()
    else:
        other, known = load_model(source), read_record(source).class_names
    backbone = _copied(
        model.denoiser.backbone,
        other.denoiser.backbone,
        lambda classes, old: matched_classes(class_names, known, classes, old),
    )
    return with_network(model, backbone)


def matched_classes(
    names: Sequence[str], known: Sequence[str], classes: int, known_classes: int
) -> list[int | None]:
    """For each of `classes` the number of the class of another model that it is; None for a new one.

    - `names`, `known`: of the classes, and of the other model's; without both, equal numbers match.
    """
    if len(names) == classes and len(known) == known_classes and names and known:
        return [known.index(name) if name in known else None for name in names]
    return [number if number < known_classes else None for number in range(classes)]


def _copied(network: Any, source: Any, matched: Callable[[int, int], list[int | None]]) -> Any:
    is_table = lambda node: isinstance(node, ClassEmbedding)  # noqa: E731
    ours, structure = jax.tree_util.tree_flatten_with_path(network, is_leaf=is_table)
    theirs, other_structure = jax.tree_util.tree_flatten_with_path(source, is_leaf=is_table)
    if len(ours) != len(theirs) or structure.num_nodes != other_structure.num_nodes:
        classes = [any(is_table(node) for _, node in leaves) for leaves in (ours, theirs)]
        why = "" if classes[0] == classes[1] else ": only one of them has classes"
        raise ValueError(
            f"the two networks have different layers{why}, so that weights of one cannot begin the other; "
            "give the model the configuration of the file, `diffusion-eqx info` shows it"
        )
    found, wrong = [], []
    for (path, own), (_, given) in zip(ours, theirs, strict=True):
        if isinstance(own, ClassEmbedding):
            found.append(
                eqx.tree_at(lambda c: c.table, own, _table(own.table, given.table, matched))
            )
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


def _table(
    own: jax.Array, given: jax.Array, matched: Callable[[int, int], list[int | None]]
) -> jax.Array:
    """The table of classes; its last row means "no class"."""
    if own.shape[1:] != given.shape[1:]:
        raise ValueError(
            f"the class tables have {own.shape[1]} and {given.shape[1]} features; they must be equal"
        )
    none = len(given) - 1
    rows = [none if number is None else number for number in matched(len(own) - 1, none)]
    return jnp.asarray(np.asarray(given)[[*rows, none]], own.dtype)
