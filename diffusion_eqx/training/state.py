"""What changes while a network is trained."""

from typing import Any, Generic, TypeVar

import equinox as eqx
import optax
from jaxtyping import Array, Bool, Int

from diffusion_eqx._typing import PRNGKey, Scalar

# What is trained: a backbone, an autoencoder, or any other module.
Network = TypeVar("Network")


class TrainState(eqx.Module, Generic[Network]):
    """All that changes while training, and the key.

    - `network`: the weights after `step` steps.
    - `average`: their moving average.
    - `opt_state`: the optimiser's.
    - `step`: steps done, all of them with a finite loss.
    - `loss_sum`: the sum of the losses since the last report.
    - `halted`: whether step `step + 1` was tried and gave a loss or a gradient that is not finite. Nothing
      changes from then on, so that the rest of a state is always good.
    - `key`: does not change: step i uses `fold_in(key, i)`.
    """

    network: Network
    average: Any
    opt_state: optax.OptState
    step: Int[Array, ""]
    loss_sum: Scalar
    halted: Bool[Array, ""]
    key: PRNGKey


def averaged(state: TrainState[Network]) -> Network:
    """The network with the moving average for its weights: draw samples with it, and save it."""
    return eqx.combine(state.average, state.network)
