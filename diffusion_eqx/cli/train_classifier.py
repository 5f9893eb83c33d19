"""`diffusion-eqx train-classifier`: a classifier of noisy images, to guide a model with."""

import dataclasses
import sys
from pathlib import Path
from typing import Annotated

import tyro

from diffusion_eqx.config import NoiseScheduleConfig, NoisyClassifierConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainClassifier:
    """Train a classifier of noisy images and write it as one file, for `sample --guidance classifier`."""

    out: Annotated[Path, tyro.conf.arg(aliases=["-o"], metavar="FILE")]
    """The file to write, e.g. classifier.safetensors."""
    data: Annotated[str, tyro.conf.arg(metavar="NAME|FOLDER")] = "fashion-mnist"
    """What to train on: fashion-mnist, digits, or a folder of pictures, in which folders are classes."""
    input_shape: tuple[int, int, int] = (28, 28, 1)
    """Height, width and channels at which a folder's pictures are read: those of the model's images."""
    data_dir: Path | None = None
    """Where the data set's files are, if not where its package puts them."""
    noise_schedule: NoiseScheduleConfig = dataclasses.field(
        default_factory=lambda: NoiseScheduleConfig(schedule_type="cosine")
    )
    """The noise: that of the model which is to be guided."""
    hidden_dims: tuple[int, ...] = (32, 64)
    """Channels of each resolution, the finest first."""
    epochs: int = 0
    """Times that each image is seen; 0: enough for the data, 3 for fashion-mnist and 40 for others."""
    batch_size: int = 100
    """Images of one step."""
    learning_rate: float = 2e-3
    """Its peak, decayed to zero by a cosine."""
    seed: int = 0
    """Decides initial weights, order of the data and noise."""


_EPOCHS = {"fashion-mnist": 3}
_EPOCHS_OF_OTHERS = 40


def run(options: TrainClassifier) -> None:
    """Train as the options say."""
    import jax

    from diffusion_eqx.cli.data import load_dataset
    from diffusion_eqx.compile_cache import use_compile_cache
    from diffusion_eqx.models import save_classifier
    from diffusion_eqx.training import train_noisy_classifier

    if options.epochs < 0:
        raise ValueError(f"--epochs must not be negative; got {options.epochs}")
    use_compile_cache()
    *size, channels = options.input_shape
    dataset = load_dataset(options.data, (size[0], size[1]), channels, options.data_dir)
    height, width, channels = dataset.shape
    config = NoisyClassifierConfig(
        input_shape=(height, width, channels),
        num_classes=dataset.num_classes or 0,
        noise_schedule=options.noise_schedule,
        hidden_dims=options.hidden_dims,
    )
    epochs = options.epochs or _EPOCHS.get(options.data, _EPOCHS_OF_OTHERS)
    classifier = train_noisy_classifier(
        dataset,
        config,
        epochs=epochs,
        batch_size=options.batch_size,
        learning_rate=options.learning_rate,
        key=jax.random.key(options.seed),
    )
    record = {
        "data": options.data,
        "class_names": list(dataset.class_names),
        "images": len(dataset),
        "epochs": epochs,
        "batch_size": options.batch_size,
        "learning_rate": options.learning_rate,
        "seed": options.seed,
    }
    save_classifier(options.out, classifier, training=record)
    print(f"wrote {options.out} ({epochs} epochs of {options.data})", file=sys.stderr)
