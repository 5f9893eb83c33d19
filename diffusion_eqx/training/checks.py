"""Whether data fit a model, found before any work is done."""

import warnings

import numpy as np

from diffusion_eqx.config import TrainingConfig
from diffusion_eqx.data import Dataset, ImagesInMemory
from diffusion_eqx.models import AbstractDiffusionModel, LDMModel


class DataMismatch(ValueError):
    """Data and model do not fit each other."""


def check_data(model: AbstractDiffusionModel, data: Dataset) -> None:
    """Compare a data set with the model that is to be trained on it.

    **Raises:** `DataMismatch`, with all that is wrong, if the shape of the images is not the model's; if
    there are labels and the model has no classes, or the other way round; if a label is none of the model's
    classes; if there are more class names than classes, or fewer; or if a latent model is given a data set
    that does not hold its images in memory.

    **Warns:** `UserWarning` if the model has classes of which there is no example.
    """
    problems: list[str] = []
    wanted, found = tuple(model.config.input_shape), tuple(data.shape)
    if wanted != found:
        problems.append(
            f"the model is made for images of shape {wanted}, and these have {found}: give the model's "
            f"configuration input_shape={found}, or resize the images"
        )
    if isinstance(model, LDMModel) and not isinstance(data, ImagesInMemory):
        problems.append(
            f"a latent model encodes all images beforehand, and a {type(data).__name__} has no `images`: "
            "put them into an ImageDataset"
        )
    classes, labels = model.num_classes, data.labels
    # A stream has classes, but its labels are known only as they are read.
    labelled = labels is not None or data.num_classes is not None
    if classes is None and labelled:
        problems.append(
            f"the data have {data.num_classes} classes, and the model has none: give its configuration "
            f"num_classes={data.num_classes}, or leave out the labels"
        )
    elif classes is not None and not labelled:
        problems.append(
            f"the model has {classes} classes, and the data have no labels: give them labels, or the "
            "model's configuration num_classes=None"
        )
    elif classes is not None and labels is not None:
        problems += _wrong_labels(classes, np.asarray(labels), data)
    elif classes != data.num_classes:
        problems.append(
            f"the data have {data.num_classes} classes, the model has {classes}: give its configuration "
            f"num_classes={data.num_classes}"
        )
    if problems:
        raise DataMismatch("the data do not fit the model: " + "; ".join(problems))
    if classes is not None and labels is not None:
        _warn_of_empty_classes(classes, np.asarray(labels))


def _wrong_labels(classes: int, labels: np.ndarray, data: Dataset) -> list[str]:
    least, greatest = int(labels.min()), int(labels.max())
    remedy = f"give the model's configuration num_classes={data.num_classes}"
    if least < 0:
        return [f"a label is {least}, and labels begin with 0: leave such examples out"]
    if greatest >= classes:
        return [f"labels go up to {greatest}, and the model's classes to {classes - 1}: {remedy}"]
    if data.class_names and len(data.class_names) != classes:
        return [f"the data name {len(data.class_names)} classes, the model has {classes}: {remedy}"]
    return []


def _warn_of_empty_classes(classes: int, labels: np.ndarray) -> None:
    empty = np.setdiff1d(np.arange(classes), labels)
    if empty.size:
        shown = ", ".join(map(str, empty[:8])) + (", …" if empty.size > 8 else "")
        warnings.warn(
            f"the model has {classes} classes, and no example is of {shown}: what is drawn of these will "
            "mean nothing",
            stacklevel=3,
        )


def check_unchanged(config: TrainingConfig) -> None:
    """Check that a training on latents asks for no changes of images.

    **Raises:** `ValueError` if it does.
    """
    if config.flip or config.shift or config.jitter:
        raise ValueError(
            "flip, shift and jitter change images, and a latent model is trained on latents, which are "
            "encoded once beforehand; put changed copies of the images into the data set"
        )
