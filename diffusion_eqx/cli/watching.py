"""What `diffusion-eqx train` watches a run by."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

if TYPE_CHECKING:
    from diffusion_eqx.data import ImagesInMemory
    from diffusion_eqx.training import Callback


@dataclasses.dataclass(frozen=True, kw_only=True)
class Watch:
    """What is measured while training, and where the reports go beside the folder of the run."""

    quality_every: int = 0
    """Steps between two measurements of the Fréchet distance of images that the model draws, and of the
    share that shows the class asked for; 0: never."""
    quality_count: int = 200
    """So many images are drawn for it."""
    quality_steps: int | None = None
    """Steps of the sampler for it; by default as the model recommends."""
    classifier: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """What judges them: a file written by `diffusion-eqx train-classifier`; by default a classifier that is
    trained on the data's classes first."""
    tensorboard: tyro.conf.FlagCreatePairsOff[bool] = False
    """Write events for TensorBoard into the folder tensorboard of the run."""
    wandb: Annotated[str | None, tyro.conf.arg(metavar="PROJECT")] = None
    """Send the reports to this project of Weights & Biases."""


def callbacks_of(watch: Watch, data: "ImagesInMemory", name: str) -> "list[Callback]":
    """The callbacks for what is to be watched.

    - `name`: of the data, for people.

    **Raises:** `ValueError` if a package is missing, or if nothing can judge the images.
    """
    from diffusion_eqx.training import TensorBoard, WeightsAndBiases

    found: list[Callback] = []
    try:
        if watch.tensorboard:
            found.append(TensorBoard())
        if watch.wandb is not None:
            found.append(WeightsAndBiases(watch.wandb))
    except ModuleNotFoundError as error:
        raise ValueError(str(error)) from error
    if watch.quality_every > 0:
        found.append(_quality(watch, data, name))
    return found


def _quality(watch: Watch, data: "ImagesInMemory", name: str) -> "Callback":
    from diffusion_eqx.cli.judging import judge_of
    from diffusion_eqx.evaluation import ClassifierFeatures, Quality, make_reference

    judge, _ = judge_of(data, name, watch.classifier)
    features = ClassifierFeatures(judge)
    return Quality(
        make_reference(features, data),
        features,
        judge,
        every=watch.quality_every,
        count=watch.quality_count,
        steps=watch.quality_steps,
    )
