"""What changes while a network is trained."""

from typing import Any, Generic, TypeVar

import equinox as eqx
import optax
from jaxtyping import Array, Bool, Float, Int

from diffusion_eqx._typing import PRNGKey, Scalar
from diffusion_eqx.losses import Importance, Uncertainty
from diffusion_eqx.training.loss_scale import LossScale

# What is trained: a backbone, an autoencoder, or any other module.
Network = TypeVar("Network")

# The average with which samples are drawn, and which is saved.
EMA = "ema"


class Learned(eqx.Module):
    """What an adaptive loss has learnt of itself, and the optimiser's state of its uncertainty."""

    uncertainty: Uncertainty | None
    importance: Importance | None
    opt_state: optax.OptState


class Metrics(eqx.Module):
    """Sums since the last report, over the steps that were not skipped."""

    loss: Float[Array, ""]
    steps: Int[Array, ""]


class TrainState(eqx.Module, Generic[Network]):
    """All that changes while training, and the key.

    - `network`: the newest weights.
    - `averages`: their moving averages, by name; `EMA` is there always.
    - `opt_state`: the optimiser's.
    - `step`: batches used. `updates`: updates of the weights, fewer if float16 overflowed.
    - `learning_rate_scale`: factor of the learning rate; smaller after a return from divergence.
    - `loss_scale`: of float16, else None.
    - `learned`: of an adaptive loss, else None.
    - `metrics`: since the last report.
    - `halted`: whether step `step + 1` was tried and gave a loss or a gradient that is not finite. Nothing
      changes from then on, so that the rest of a state is always good.
    - `root`: the key of the run; it does not change.
    """

    network: Network
    averages: dict[str, Any]
    opt_state: optax.OptState
    step: Int[Array, ""]
    updates: Int[Array, ""]
    learning_rate_scale: Scalar
    loss_scale: LossScale | None
    learned: Learned | None
    metrics: Metrics
    halted: Bool[Array, ""]
    root: PRNGKey


def averaged(state: TrainState[Network], name: str = EMA) -> Network:
    """The network with a moving average for its weights: draw samples with it, and save it.

    **Raises:** `ValueError` if the run keeps no average of that name.
    """
    if name not in state.averages:
        raise ValueError(
            f"the run keeps no average {name!r}; there are: {', '.join(state.averages)}"
        )
    return eqx.combine(state.averages[name], state.network)
