"""The classifier by which commands judge images."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from diffusion_eqx.data import ImagesInMemory
    from diffusion_eqx.evaluation import ImageClassifier

_MANY_IMAGES = 10_000


def judge_of(data: "ImagesInMemory", name: str, file: Path | None) -> "tuple[ImageClassifier, int]":
    """A classifier of a file, or one trained on labelled images now, always alike; and its classes' number.

    - `name`: of the data, for people.

    **Raises:** `ValueError` if the file's does not fit the data, or if there is no file and the data have
    no classes.
    """
    import jax

    from diffusion_eqx.evaluation import CleanClassifier, train_classifier
    from diffusion_eqx.models import load_classifier

    if file is None:
        if data.num_classes is None:
            raise ValueError(
                f"{name} has no classes, by which a classifier could be trained that judges; give one by "
                "--classifier FILE"
            )
        print(f"training a classifier of {name}, which judges", file=sys.stderr)
        judge = train_classifier(
            data,
            epochs=3 if len(data) > _MANY_IMAGES else 30,
            batch_size=min(200, len(data)),
            key=jax.random.key(0),
        )
        return judge, data.num_classes
    judge = CleanClassifier(load_classifier(file).classifier)
    classes = judge.classifier.config.num_classes
    if judge.image_shape != tuple(data.shape):
        raise ValueError(
            f"{file} judges images of shape {judge.image_shape}; those of {name} have shape "
            f"{tuple(data.shape)}: train one by train-classifier --data {name}"
        )
    if data.num_classes not in (None, classes):
        raise ValueError(f"{file} knows {classes} classes; {name} has {data.num_classes}")
    return judge, classes
