"""Losses that learn while the network does: about their own size at each level."""

import dataclasses
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from diffusion_eqx._typing import Batch, Cond, PRNGKey
from diffusion_eqx.denoiser import Backbone
from diffusion_eqx.losses.base import AbstractLoss
from diffusion_eqx.losses.denoising import DenoisingLoss
from diffusion_eqx.losses.draws import Draws
from diffusion_eqx.losses.importance import Importance
from diffusion_eqx.losses.uncertainty import Uncertainty
from diffusion_eqx.losses.variational import HybridLoss


class Seen(eqx.Module):
    """What a loss has learnt from: the place in (0, 1) of each example's level, and its plain loss."""

    places: Float[Array, " batch"]
    losses: Float[Array, " batch"]


class AdaptiveLoss(AbstractLoss):
    """A loss with learned uncertainty, loss-aware times, or both.

    What it learns belongs to the state of a training run, which calls `begin` once and puts it in anew at
    each step.

    - `loss`: the one that is adapted.
    - `uncertainty`, `importance`: what has been learnt, or None.
    """

    loss: DenoisingLoss | HybridLoss
    uncertainty: Uncertainty | None
    importance: Importance | None

    @classmethod
    def begin(
        cls,
        loss: Callable[..., Any],
        *,
        uncertainty: bool,
        importance: bool,
        key: PRNGKey,
    ) -> "AdaptiveLoss":
        """Nothing is learnt yet: at first the loss is that of `loss`.

        **Raises:** `TypeError` if the loss is no `DenoisingLoss` and no `HybridLoss`.
        """
        if not isinstance(loss, DenoisingLoss | HybridLoss):
            raise TypeError(
                "learned uncertainty and loss-aware times are for a DenoisingLoss or a HybridLoss, whose "
                f"levels are known; got a {type(loss).__name__}"
            )
        return cls(
            loss,
            Uncertainty(key=key) if uncertainty else None,
            Importance.even() if importance else None,
        )

    def each(
        self, network: Backbone, x0: Batch, cond: Cond, draws: Draws
    ) -> Float[Array, " batch"]:
        """The loss of each example; its plain size is in `each_seen`."""
        return self.each_seen(network, x0, cond, draws)[0]

    def each_seen(
        self, network: Backbone, x0: Batch, cond: Cond, draws: Draws
    ) -> tuple[Float[Array, " batch"], Seen]:
        """The loss of each example, and what `importance.updated` learns from it."""
        draws = dataclasses.replace(draws, importance=self.importance)
        plain = self.loss.each(network, x0, cond, draws)
        places, weighted = draws.uniforms(), plain
        if self.uncertainty is not None:
            u = self.uncertainty(self.loss.levels(draws))
            weighted = weighted * jnp.exp(-u) + u
        if self.importance is not None:
            weighted = weighted * self.importance.weight(places)
        return weighted, Seen(places, plain)
