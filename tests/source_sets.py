"""Data sets of other libraries, small and made on the spot; each holds the same examples."""

from pathlib import Path
from typing import Any

import numpy as np

COUNT = 24
NAMES = ("left", "middle", "right")
LABELS = np.arange(COUNT) % 3
IMAGES = np.random.default_rng(5).integers(0, 256, (COUNT, 6, 5, 1), np.uint8)


def tf_data() -> Any:
    import tensorflow as tf

    return tf.data.Dataset.from_tensor_slices({"image": IMAGES, "label": LABELS})


def tfds_source(folder: Path) -> Any:
    """Written into a folder, as a data set that was downloaded lies there."""
    import tensorflow_datasets as tfds

    builder = _builder(tfds, folder)
    builder.download_and_prepare()
    return builder.as_data_source(split="train")


def _builder(tfds: Any, folder: Path) -> Any:
    class Strips(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            features = {
                "image": tfds.features.Image(shape=IMAGES.shape[1:], encoding_format="png"),
                "label": tfds.features.ClassLabel(names=list(NAMES)),
            }
            return self.dataset_info_from_configs(
                features=tfds.features.FeaturesDict(features), supervised_keys=("image", "label")
            )

        def _split_generators(self, dl_manager):
            return {"train": self._generate_examples()}

        def _generate_examples(self):
            for number, (image, label) in enumerate(zip(IMAGES, LABELS, strict=True)):
                yield f"{number:04}", {"image": image, "label": int(label)}

    return Strips(data_dir=folder, file_format="array_record")


def hugging_face() -> Any:
    import datasets
    from PIL import Image

    features = {"image": datasets.Image(), "label": datasets.ClassLabel(names=list(NAMES))}
    pictures = [Image.fromarray(image[..., 0]) for image in IMAGES]
    return datasets.Dataset.from_dict(
        {"image": pictures, "label": LABELS.tolist()}, features=datasets.Features(features)
    )


def grain_map() -> Any:
    import grain

    records = [
        {"image": image, "label": int(label)} for image, label in zip(IMAGES, LABELS, strict=True)
    ]
    return grain.MapDataset.source(records)
