"""What every kind of training is told: where the run is, what is trained, and on which images."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from diffusion_eqx.config import (
    DDIMConfig,
    DDPMConfig,
    DiTConfig,
    LDMConfig,
    ScoreDiffusionConfig,
)

if TYPE_CHECKING:
    from diffusion_eqx.data import ImagesInMemory

# The kinds of model, by the names with which `--kind` chooses them.
KINDS: dict[str, type[Any]] = {
    "ddim": DDIMConfig,
    "ddpm": DDPMConfig,
    "score": ScoreDiffusionConfig,
    "dit": DiTConfig,
    "latent": LDMConfig,
}
# Students are called as `distill` calls its methods, with a dash.
STUDENTS = ("progressive", "consistency", "consistency-training")
ALL_KINDS = (*KINDS, *STUDENTS)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Goal:
    """Where the run is, and what is trained."""

    out: Annotated[Path, tyro.conf.arg(aliases=["-o"], metavar="FOLDER")]
    """The folder of the run, e.g. run."""
    kind: Annotated[str, tyro.conf.arg(metavar="{" + ",".join(ALL_KINDS) + "}")] = "ddim"
    """What is trained. Each kind has options of its own: --kind dit --help shows them. latent trains its
    autoencoder first, in the folder autoencoder of the run. The last three are students of another model,
    which draw in few steps."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Source:
    """The images."""

    data: Annotated[str, tyro.conf.arg(metavar="NAME|FOLDER|FILE")] = "fashion-mnist"
    """fashion-mnist, digits, emoji, a folder of pictures or a .zip of one, whose folders are classes; or a
    .npy, .npz or idx file."""
    size: tuple[int, int] | int | None = None
    """Height and width of a folder's pictures, or one number for both, if the model does not say: 28."""
    labels: Annotated[Path | None, tyro.conf.arg(metavar="FILE.csv")] = None
    """A table with the path of each picture and the name of its class, in place of class folders."""
    broken: Annotated[str | None, tyro.conf.arg(metavar="{refuse,skip}")] = None
    """Whether pictures that cannot be read are refused, all by their names, or left out; by default they
    are refused."""
    data_dir: Path | None = None
    """Where the data set's files are, if not where its package puts them."""


def check_out(out: Path) -> None:
    """Check that the run's folder is not named as a file.

    **Raises:** `ValueError`.
    """
    if out.suffix == ".safetensors":
        raise ValueError(
            f"--out is the folder of the run, into which model.safetensors is written; got {out}: write "
            f"e.g. --out {out.with_suffix('')}"
        )


def load_source(
    source: Source, size: tuple[int, int], channels: int | None, batch_size: int
) -> "ImagesInMemory":
    """The images to train on.

    - `size`: (height, width) at which a folder's pictures are read, if `source` does not say.
    - `channels`: in which they are read; None: in their own.

    **Raises:** `ValueError` as `load_dataset`, and if there are fewer images than a batch has.
    """
    from diffusion_eqx.cli.data import check_picture_options, load_dataset

    check_picture_options(source.data, size=source.size, labels=source.labels, broken=source.broken)
    data = load_dataset(
        source.data,
        size if source.size is None else source.size,
        channels,
        source.data_dir,
        source.labels,
        source.broken,
    )
    if batch_size > len(data):
        raise ValueError(
            f"--training.batch-size {batch_size} is more than the {len(data)} images of {source.data}: "
            f"give more images, or a batch size of at most {len(data)}"
        )
    return data
