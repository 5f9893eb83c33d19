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
    """What a classifier of noisy images needs to know."""

    name: str = "noisy_classifier"
    """A name for people."""
    input_shape: tuple[PositiveInt, PositiveInt, PositiveInt] = (28, 28, 1)
    """Height, width and channels of one image."""
    num_classes: Annotated[int, Field(ge=2)] = 10
    """Number of classes."""
    noise_schedule: NoiseScheduleConfig = field(default_factory=NoiseScheduleConfig)
    """The noise that it sees; that of the model which it is to guide."""
    hidden_dims: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] = (32, 64)
    """Channels of each resolution, the finest first; each halves the image."""
    time_embedding_dim: Annotated[int, Field(ge=2, multiple_of=2)] = 64
    """Width of the embedding of the noise level."""
    dropout: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.1
    """Probability of dropping a feature inside residual blocks while training."""
