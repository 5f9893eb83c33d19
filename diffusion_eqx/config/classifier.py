"""Configuration of classifiers of noisy images."""

from dataclasses import field
from typing import Annotated

from pydantic import Field
from pydantic.dataclasses import dataclass

from diffusion_eqx.config.backbone import PositiveInt
from diffusion_eqx.config.base import STRICT
from diffusion_eqx.config.schedule import NoiseScheduleConfig


@dataclass(frozen=True, kw_only=True, config=STRICT)
class NoisyClassifierConfig:
    """What a classifier of noisy images needs to know.

    **Fields:**

    - `input_shape`: (height, width, channels) of one image.
    - `num_classes`: number of classes.
    - `noise_schedule`: the noise that it sees; that of the model which it is to guide.
    - `hidden_dims`: channels of each resolution, the finest first; each halves the image.
    - `time_embedding_dim`: width of the embedding of the noise level.
    - `dropout`: probability of dropping a feature inside residual blocks while training.
    """

    name: str = "noisy_classifier"
    input_shape: tuple[PositiveInt, PositiveInt, PositiveInt] = (28, 28, 1)
    num_classes: Annotated[int, Field(ge=2)] = 10
    noise_schedule: NoiseScheduleConfig = field(default_factory=NoiseScheduleConfig)
    hidden_dims: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] = (32, 64)
    time_embedding_dim: Annotated[int, Field(ge=2, multiple_of=2)] = 64
    dropout: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.1
