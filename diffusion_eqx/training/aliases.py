"""Names that readers of other libraries know: a trainer and an averaged model as objects."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Generic, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from diffusion_eqx.config import TrainingConfig
from diffusion_eqx.data import Dataset
from diffusion_eqx.models import AbstractDiffusionModel
from diffusion_eqx.training.averages import ExponentialAverage
from diffusion_eqx.training.callback import Callback
from diffusion_eqx.training.model import train
from diffusion_eqx.training.parts import trainable

ModelT = TypeVar("ModelT", bound=AbstractDiffusionModel)


class DiffusionTrainer(Generic[ModelT]):
    """`DiffusionTrainer(model, config).train(data)` is `train(model, data, config)`.

    - `out`, `callbacks`: as of `train`.
    """

    def __init__(
        self,
        model: ModelT,
        config: TrainingConfig,
        *,
        out: str | Path | None = None,
        callbacks: Iterable[Callback] = (),
    ):
        self._model = model
        self._config = config
        self._out = out
        self._callbacks = tuple(callbacks)

    def train(self, data: Dataset) -> ModelT:
        """The trained model; **Raises:** as `train`."""
        return train(self._model, data, self._config, out=self._out, callbacks=self._callbacks)


class EMAModel(eqx.Module, Generic[ModelT]):
    """A model whose weights are a moving average, for loops of one's own; `train` keeps one itself.

        ema = EMAModel.of(model, decay=0.999)
        ema = ema.update(model)                      # after each step
        images = ema.model.sample(16, key=key)

    The n-th update has the decay min(decay, (1 + n)/(10 + n)).

    - `model`: with the averaged weights.
    - `updates`: their number.
    """

    model: ModelT
    updates: Int[Array, ""]
    average: ExponentialAverage = eqx.field(static=True)

    @classmethod
    def of(cls, model: ModelT, *, decay: float = 0.999) -> "EMAModel[ModelT]":
        """The average before the first update, which is the model itself.

        **Raises:** `ValueError` unless 0 <= decay < 1.
        """
        if not 0.0 <= decay < 1.0:
            raise ValueError(f"decay must be at least 0 and below 1; got {decay}")
        return cls(model, jnp.zeros((), jnp.int32), ExponentialAverage(1, decay))

    def update(self, model: ModelT) -> "EMAModel[ModelT]":
        """The average after another step of the model."""
        mask = trainable(model)
        old, rest = eqx.partition(self.model, mask)
        new = eqx.filter(model, mask)
        share = 1.0 - self.average.decay(self.updates)

        def move(a: Any, b: Any) -> Any:
            return a + share.astype(a.dtype) * (b - a)

        return EMAModel(
            eqx.combine(jax.tree.map(move, old, new), rest), self.updates + 1, self.average
        )
