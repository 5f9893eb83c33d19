"""What a loss is: a number for each example, from random numbers of that example's own."""

from abc import abstractmethod
from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from diffusion_eqx._typing import Batch, Cond, PRNGKey, Scalar
from diffusion_eqx.losses.draws import Draws


class AbstractLoss(eqx.Module):
    """`loss(network, x0, cond, *, key) -> scalar`, the mean of `each`. It keeps no network.

    A loss of your own defines `each`. Training also takes any function of the call above; but with such a
    loss accumulated gradients are not those of one large batch, since all examples share one key.
    """

    @abstractmethod
    def each(self, network: Any, x0: Batch, cond: Cond, draws: Draws) -> Float[Array, " batch"]:
        """The loss of each example of a clean batch.

        - `network`: what is trained.
        - `x0`: (batch, …); images in [−1, 1], latents or other examples.
        - `cond`: the condition of each example, or None.
        - `draws`: the random numbers of the rows.
        """

    def __call__(self, network: Any, x0: Batch, cond: Cond = None, *, key: PRNGKey) -> Scalar:
        """The mean loss of a batch."""
        return jnp.mean(self.each(network, x0, cond, Draws.of(key, len(x0))))
