"""Labels and other conditions of a run, checked against the model and put into one `cond`."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from diffusion_eqx._typing import Cond
from diffusion_eqx.denoiser import AbstractDenoiser
from diffusion_eqx.guidance import ClassifierGuidance, guidance_of, names_taken
from diffusion_eqx.samplers import fit_cond


def condition(
    denoiser: AbstractDenoiser, num_classes: int | None, count: int, labels: Any, cond: Cond
) -> Cond:
    """The condition of `count` examples: `labels` and what else `cond` holds, each checked.

    - `labels`: None, one label for all, or one for each; `num_classes` itself means "no class".
    - `cond`: None, a bare array of labels, or a dict by name.

    **Raises:** `ValueError` for labels given twice, to a model without classes, or out of range;
    for names that nothing takes; and for parts of another number than `count`.
    """
    taken = names_taken(denoiser)
    parts = dict(cond) if isinstance(cond, dict) else {} if cond is None else {"label": cond}
    if labels is not None:
        if "label" in parts:
            raise ValueError("labels are given twice: as labels, and in cond; give them once")
        wanted = ("label",) * (num_classes is not None) + ("class_label",) * (
            "class_label" in taken
        )
        if not wanted:
            raise ValueError(
                "labels are given, but the model is unconditional (its backbone has "
                "num_classes=None) and no guidance "
                "takes them; leave labels out"
            )
        parts = {name: labels for name in wanted} | parts
    unknown = sorted(parts.keys() - {"label", *taken})
    if unknown:
        known = ", ".join(["label", *taken])
        raise ValueError(
            f"cond holds {unknown[0]!r}, which neither the network nor the guidance takes; "
            f"known are {known}"
        )
    if "label" in parts and num_classes is None:
        raise ValueError(
            'cond holds "label", but the model is unconditional (num_classes=None); leave it out'
        )
    if "label" in parts:
        parts["label"] = _checked_labels(parts["label"], num_classes, count)
    if "class_label" in parts:
        known = _classes_of_classifier(denoiser)
        parts["class_label"] = _checked_labels(parts["class_label"], known, count, null=False)
    return fit_cond(parts, count) or None


def _classes_of_classifier(denoiser: AbstractDenoiser) -> int | None:
    """How many classes the classifier that guides knows, if it says so."""
    for guidance in guidance_of(denoiser):
        if isinstance(guidance, ClassifierGuidance):
            return getattr(getattr(guidance.classifier, "config", None), "num_classes", None)
    return None


def _checked_labels(labels: Any, num_classes: int | None, count: int, *, null: bool = True) -> Any:
    if not hasattr(labels, "dtype"):
        labels = np.asarray(labels)
    if not jnp.issubdtype(labels.dtype, jnp.integer):
        raise ValueError(
            f"labels are integers, the numbers of classes; got {labels.dtype}. The names of classes "
            "stand in the record of a model's file: read_record(path).training['class_names']"
        )
    array = jnp.asarray(labels)
    if array.ndim > 1 or (array.ndim == 1 and array.shape[0] not in (1, count)):
        raise ValueError(
            f"labels must be one for all {count} images, or one for each; got shape {array.shape}"
        )
    if num_classes is not None and not isinstance(array, Tracer):
        known = np.asarray(array)
        largest = num_classes if null else num_classes - 1
        if known.size and not (known.min() >= 0 and known.max() <= largest):
            extra = f", and {num_classes} means no class" if null else ""
            raise ValueError(
                f"labels lie in 0 … {num_classes - 1}{extra}; got values in [{known.min()}, {known.max()}]"
            )
    return array.astype(jnp.int32)
