"""Data sets of other libraries, as data sets of this one."""

import sys
from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np

from diffusion_eqx.data.grain_stream import GrainStream, is_grain_map, is_grain_stream
from diffusion_eqx.data.hugging_face_stream import (
    HuggingFaceStream,
    check_resumable,
    is_hugging_face,
    is_hugging_face_stream,
)
from diffusion_eqx.data.image_folder import checked_size
from diffusion_eqx.data.record import RecordReader
from diffusion_eqx.data.source_dataset import SourceDataset
from diffusion_eqx.data.stream_dataset import StreamDataset
from diffusion_eqx.data.tensorflow_stream import (
    TensorFlowStream,
    checked_graph,
    is_tf_data,
    tf_length,
)

Resume = Literal["exact", "approximate"]


def as_dataset(
    source: Any,
    *,
    image: str = "image",
    label: str | None = "label",
    labels: Any = None,
    size: int | tuple[int, int] | None = None,
    channels: Literal[1, 3] | None = None,
    class_names: Sequence[str] | None = None,
    num_classes: int | None = None,
    length: int | None = None,
    resume: Resume = "exact",
) -> SourceDataset | StreamDataset:
    """A data set of TensorFlow, Hugging Face or grain, or any sequence of records, to train on.

    | source | read | order |
    |---|---|---|
    | `tfds.data_source`, `datasets.Dataset`, `grain.MapDataset`, any sequence | by number | of the seed |
    | `tf.data.Dataset`, `datasets.IterableDataset`, `grain.IterDataset` | as a stream | its own |

    A record is a mapping, a pair (image, label) or an image alone. Its image is an array (height, width[,
    channels]) of uint8 or of floats in [−1, 1], a picture of Pillow, or the bytes of a picture file, which
    is decoded as `ImageFolder` does, on white.

    Batches of what is read by number depend on the seed and on their number only. A stream goes on from its
    own state, or is read again from its start, which gives the same batches; it must be unbatched.

    - `image`, `label`: names of the fields of a mapping; `label=None` reads no labels.
    - `labels`: (N,) integers, in place of those in the records. Otherwise the records of a source that is
      read by number are read once to know the labels, unless the library keeps them apart.
    - `size`: pixels of a side, or (height, width), to which pictures and uint8 arrays are scaled and cut;
      None: all have one size.
    - `channels`: 1 for grey, 3 for colour, None for those of the images.
    - `class_names`, `num_classes`: of the classes; by default as the source says.
    - `length`: the number of examples of one pass of a stream that does not know it.
    - `resume`: "exact" refuses streams that would give other examples to a run that is continued: those
      that call Python, draw random numbers from a state, or shuffle without a seed, and shuffled streams of
      Hugging Face. "approximate" takes them, and a continued run sees other batches.

    **Raises:** `TypeError` if it is no source; `ValueError` if an argument does not fit it, if a stream is
    refused, or as `SourceDataset` and `StreamDataset`.
    """
    if resume not in ("exact", "approximate"):
        raise ValueError(f'resume must be "exact" or "approximate"; got {resume!r}')
    if channels not in (None, 1, 3):
        raise ValueError(f"channels must be 1, 3 or None; got {channels!r}")
    reader = RecordReader(image, label, None if size is None else checked_size(size), channels)
    names = _names(source, label) if class_names is None else tuple(class_names)
    open_stream = _stream(source, exact=resume == "exact")
    if open_stream is not None:
        if labels is not None:
            raise ValueError(
                "labels= is for sources read by number; those of a stream are in its records"
            )
        return StreamDataset(
            open_stream,
            reader,
            length=_length(source, length),
            class_names=names,
            num_classes=num_classes,
            exact=resume == "exact",
        )
    if resume != "exact":
        raise ValueError('resume="approximate" is for streams; this source is resumed exactly')
    if length is not None:
        raise ValueError("length= is for streams; this source has a length of its own")
    if not (hasattr(source, "__len__") and hasattr(source, "__getitem__")):
        raise TypeError(
            f"a {type(source).__name__} is no source: give a tf.data.Dataset, a data set of "
            "tfds.data_source, Hugging Face or grain, or a sequence of records"
        )
    if is_grain_map(source) and len(source) == sys.maxsize:
        raise ValueError(
            "leave out repeat(): training repeats the data set, in a new order each time"
        )
    known = _known_labels(source, label) if labels is None else np.asarray(labels)
    return SourceDataset(source, reader, labels=known, class_names=names, num_classes=num_classes)


def _stream(source: Any, *, exact: bool) -> Callable[[], Any] | None:
    """What begins a stream anew; None if the source is read by number."""
    if is_tf_data(source):
        graph = checked_graph(source) if exact else None
        return lambda: TensorFlowStream(source, graph)
    if is_hugging_face_stream(source):
        if exact:
            check_resumable(source)
        return lambda: HuggingFaceStream(source)
    if is_grain_stream(source):
        return lambda: GrainStream(source)
    return None


def _length(source: Any, given: int | None) -> int:
    found = given
    if found is None and is_tf_data(source):
        found = tf_length(source)
    if found is None:
        raise ValueError(
            "this stream does not say how many examples it has: give the number as length="
        )
    if found < 1:
        raise ValueError(f"the source has no examples (length {found})")
    return found


def _names(source: Any, label: str | None) -> tuple[str, ...]:
    """The names of the classes, as the features of Hugging Face and tfds have them."""
    info = getattr(source, "dataset_info", source)
    features = getattr(info, "features", None)
    if label is None or features is None:
        return ()
    try:
        names = getattr(features[label], "names", None)
    except (KeyError, TypeError):
        return ()
    return tuple(map(str, names)) if names else ()


def _known_labels(source: Any, label: str | None) -> Callable[[], np.ndarray] | None:
    """Labels that the library keeps apart from the images; None if the records are to be read."""
    if label is None or not is_hugging_face(source):
        return None
    # A function that makes the records may make their labels too.
    if label not in source.column_names or source.format["type"] == "custom":
        return None
    return lambda: np.asarray(source.with_format("numpy", columns=[label])[:][label])
