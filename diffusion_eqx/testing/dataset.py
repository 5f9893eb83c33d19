"""The laws of a data set."""

import numpy as np

from diffusion_eqx.data import Dataset
from diffusion_eqx.testing.law import broken_by, demand

_MEMBERS = ("shape", "num_classes", "class_names", "labels", "__len__", "batches")


def check_dataset(data: Dataset, *, images: bool = True) -> None:
    """Check the laws that training and evaluation rely on in a data set.

    - It has the members of `Dataset`, and some examples.
    - A batch holds `batch_size` finite examples of its shape: floating-point numbers, or bytes for pixels.
    - Pixels that are no bytes lie in [−1, 1], on both sides of 0 (`images=False` leaves this out,
      for latents).
    - Labels are integers, 0 ≤ label < num_classes, one for each example; no labels, no classes.
      Names are as many as classes, or none.
    - Batch i depends on the seed and on i alone: asked twice, out of order, or of a second stream,
      it is the same; another seed or another i gives another one.
    - An image keeps its label: the examples of one epoch are all the examples, each once.
    - A batch may be larger than the data set.

    One CPU device cannot show that batches are fast enough for a GPU.

    **Raises:** `LawBroken`, which names the law, what was found and what is owed.
    """
    missing = [name for name in _MEMBERS if not hasattr(data, name)]
    demand(
        "a data set has the members of `Dataset`",
        not missing,
        f"no {', '.join(missing)}",
        ", ".join(_MEMBERS),
    )
    count, shape = len(data), tuple(data.shape)
    demand("a data set has examples", count >= 1, count, "at least 1")
    _labels(data)
    size = max(1, min(8, count))
    try:
        stream = data.batches(size, seed=3)
        first, later = stream[0], stream[5]
    except Exception as error:
        broken_by("batches can be asked for by number", error, "no error")
    for batch in (first, later):
        _batch(data, batch, size, shape, images=images)
    _repeats(data, size, first, later)
    _epoch(data)
    large = data.batches(count + 1, seed=0)[0]
    found = len(large["images"])
    demand(
        "a batch may be larger than the data set",
        found == count + 1,
        found,
        f"{count + 1} examples",
    )


def _labels(data: Dataset) -> None:
    labels, classes, names = data.labels, data.num_classes, tuple(data.class_names)
    if labels is None:
        demand("without labels there are no classes", classes is None, classes, "num_classes None")
        return
    labels = np.asarray(labels)
    demand(
        "labels are integers, one for each example",
        labels.shape == (len(data),) and np.issubdtype(labels.dtype, np.integer),
        f"{labels.dtype} of shape {labels.shape}",
        f"integers of shape ({len(data)},)",
    )
    demand("labels have a number of classes", classes is not None, classes, "a number")
    assert classes is not None
    low, high = int(labels.min()), int(labels.max())
    demand(
        "labels are those of classes",
        low >= 0 and high < classes,
        f"labels from {low} to {high}",
        f"0 to {classes - 1}",
    )
    demand(
        "classes have a name each, or none has",
        len(names) in (0, classes),
        f"{len(names)} names",
        f"0 or {classes}",
    )


def _batch(
    data: Dataset, batch: dict[str, np.ndarray], size: int, shape: tuple[int, ...], *, images: bool
) -> None:
    wanted = {"images"} if data.labels is None else {"images", "labels"}
    demand(
        "a batch has images and labels", set(batch) == wanted, sorted(batch), str(sorted(wanted))
    )
    pixels = np.asarray(batch["images"])
    demand(
        "a batch has the shape that was asked for",
        pixels.shape == (size, *shape),
        pixels.shape,
        f"{(size, *shape)}",
    )
    demand(
        "examples are floating-point numbers, or bytes",
        np.issubdtype(pixels.dtype, np.floating) or (images and pixels.dtype == np.uint8),
        pixels.dtype,
        "float32, or uint8 for pixels",
        "Scale pixels to [−1, 1]",
    )
    demand("examples are finite", np.isfinite(pixels).all(), "NaN or infinity", "finite numbers")
    if images and pixels.dtype != np.uint8:
        low, high = float(pixels.min()), float(pixels.max())
        demand(
            "pixels lie in [−1, 1]",
            low >= -1.0 and high <= 1.0,
            f"[{low:.3g}, {high:.3g}]",
            "[−1, 1]",
            "Scale them: 2·pixel/255 − 1",
        )
        demand(
            "pixels use both halves of [−1, 1]",
            low < 0.0 < high,
            f"[{low:.3g}, {high:.3g}]",
            "numbers of both signs",
            "Pixels in [0, 1] are to be scaled: 2·pixel − 1",
        )
    if data.labels is not None:
        labels = np.asarray(batch["labels"])
        demand(
            "a batch has a label for each example",
            labels.shape == (size,) and np.issubdtype(labels.dtype, np.integer),
            f"{labels.dtype} of shape {labels.shape}",
            f"integers of shape ({size},)",
        )


def _repeats(
    data: Dataset, size: int, first: dict[str, np.ndarray], later: dict[str, np.ndarray]
) -> None:
    stream = data.batches(size, seed=3)
    again = {5: stream[5], 0: stream[0]}
    for number, known in ((0, first), (5, later)):
        same = all(np.array_equal(known[name], again[number][name]) for name in known)
        demand(
            "batch i depends on the seed and on i alone",
            same,
            f"another batch {number} of a second stream",
            "the same batch",
            "A run that resumes at step i asks for batch i, and must get what it would have got",
        )
    if len(data) >= 4:
        other = data.batches(size, seed=4)
        differs = [not np.array_equal(other[i]["images"], stream[i]["images"]) for i in range(4)]
        demand("another seed gives another order", any(differs), "the same batches", "others")
        differs = [not np.array_equal(first["images"], stream[i]["images"]) for i in range(1, 5)]
        demand("another number gives another batch", any(differs), "the same batches", "others")


def _epoch(data: Dataset) -> None:
    """All examples, one by one if they are few: each once, and with its label."""
    count = len(data)
    if count > 512:
        return
    epoch, second = data.batches(count, seed=1)[0], data.batches(count, seed=2)[0]

    def rows(batch: dict[str, np.ndarray]) -> list[bytes]:
        labels = batch.get("labels", np.zeros(count, int))
        pairs = zip(batch["images"], labels, strict=True)
        return sorted(np.asarray(x).tobytes() + int(label).to_bytes(8, "big") for x, label in pairs)

    demand(
        "an epoch holds each example once, with its label",
        rows(epoch) == rows(second),
        "epochs of different examples",
        "the same examples in another order",
        "Augmentation that draws at random comes after this law: check the data set without it",
    )
