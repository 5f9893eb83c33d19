"""Group normalisation with its scale, shift and activation (Wu & He 2018).

Sums over pixels give one scale and one shift for each (example, channel), so the forward pass writes
the image once. While a network trains, a backward pass of our own keeps the input and a few numbers for
each channel, and computes the rest again. In inference mode plain operations are used instead, which JAX
can differentiate in forward mode too.

Sums, moments and the activation SiLU are computed in float32 (in float64 for float64) whatever the dtype
of the image.
"""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from diffusion_eqx._typing import Images
from diffusion_eqx.precision import wide

_EPSILON = 1e-5
_FEWEST_CHANNELS = 4

PerChannel = Float[Array, "batch channels"]


class GroupNorm(eqx.Module):
    """activation(gamma·(x − mean)/std + beta), with the mean and std of each group of channels.

    - `channels`: of the image
    - `max_groups`: the channels are divided into the largest number of equal groups up to this one that
      leaves at least four channels in each group
    - `activation`: a function of one array, or None for none. SiLU is computed in the same pass.

    `groups` tells how many groups there are.
    """

    gamma: Float[Array, " channels"]
    beta: Float[Array, " channels"]
    groups: int = eqx.field(static=True)
    activation: Callable | None = eqx.field(static=True)
    inference: bool

    def __init__(self, channels: int, *, max_groups: int, activation: Callable | None = None):
        self.gamma = jnp.ones(channels)
        self.beta = jnp.zeros(channels)
        self.groups = _largest_group_count(channels, max_groups)
        self.activation = activation
        self.inference = False

    def __call__(
        self, x: Images, scale: PerChannel | None = None, shift: PerChannel | None = None
    ) -> Images:
        """Normalise, modulate and activate; the shape and dtype stay.

        - `x`: (batch, height, width, channels)
        - `scale`, `shift`: (batch, channels), or None. They replace gamma by gamma·(1 + scale) and beta by
          beta·(1 + scale) + shift (adaptive group normalisation: Dhariwal & Nichol 2021, eq. 3).
        """
        dtype = wide(x.dtype)
        gamma = jnp.broadcast_to(self.gamma.astype(dtype), (x.shape[0], x.shape[3]))
        beta = jnp.broadcast_to(self.beta.astype(dtype), (x.shape[0], x.shape[3]))
        if scale is not None:
            factor = 1.0 + scale.astype(dtype)
            gamma, beta = gamma * factor, beta * factor
        if shift is not None:
            beta = beta + shift.astype(dtype)
        silu = self.activation is jax.nn.silu
        function = _plain if self.inference else _with_own_gradient
        y = function(x, gamma, beta, self.groups, silu)
        return y if silu or self.activation is None else self.activation(y)


def _largest_group_count(channels: int, at_most: int) -> int:
    limit = max(1, min(at_most, channels // _FEWEST_CHANNELS))
    return next(groups for groups in range(limit, 0, -1) if channels % groups == 0)


def _moments(x: Images, groups: int) -> tuple[PerChannel, PerChannel]:
    """Mean and 1/std of each channel's group, repeated for its channels: (batch, channels) each.

    With d = x − s, the mean is s + E[d] and the variance is E[d²] − E[d]². The shift s of a group is the
    mean of its first pixel. Without it, a group of mean 1000 and deviation 1 would lose a third of its
    variance to rounding; with it, one pass is as exact as two.
    """
    pixels = x.shape[1] * x.shape[2]
    x = x.astype(wide(x.dtype))
    # The moments do not depend on s, so neither does their derivative.
    origin = jax.lax.stop_gradient(_group_mean(x[:, 0, 0], groups))
    d = x - origin[:, None, None]
    first, second = _group_mean(jnp.stack([d.sum((1, 2)), (d * d).sum((1, 2))]), groups) / pixels
    # Rounding can leave a variance of -1e-8.
    variance = jnp.maximum(second - first * first, 0.0)
    return origin + first, jax.lax.rsqrt(variance + _EPSILON)


def _group_mean(x: Float[Array, "*lead channels"], groups: int) -> Float[Array, "*lead channels"]:
    """Replace each channel's value by the mean over its group."""
    grouped = x.reshape(*x.shape[:-1], groups, -1)
    return jnp.broadcast_to(grouped.mean(-1, keepdims=True), grouped.shape).reshape(x.shape)


def _plain(x: Images, gamma: PerChannel, beta: PerChannel, groups: int, silu: bool) -> Images:
    return _forward(x, gamma, beta, groups, silu)[0]


def _forward(x, gamma, beta, groups, silu):
    mean, rstd = _moments(x, groups)
    scale = gamma * rstd
    shift = beta - mean * scale
    y = x.astype(scale.dtype) * scale[:, None, None] + shift[:, None, None]
    return (jax.nn.silu(y) if silu else y).astype(x.dtype), (x, gamma, beta, mean, rstd)


def _backward(groups, silu, saved, dy):
    """The gradient with respect to x, gamma and beta.

    With x̂ = (x − mean)·rstd, y = gamma·x̂ + beta and g = dy·silu'(y):

    dbeta = Σ g, dgamma = Σ g·x̂ over pixels, and
    dx = rstd·(gamma·g − mean_group(gamma·g) − x̂·mean_group(gamma·g·x̂)).

    The group means follow from dbeta and dgamma, without another pass.
    """
    x, gamma, beta, mean, rstd = saved
    pixels = x.shape[1] * x.shape[2]

    def expand(a: PerChannel) -> Images:
        return a[:, None, None]

    normed = (x.astype(mean.dtype) - expand(mean)) * expand(rstd)
    g = dy.astype(mean.dtype)
    if silu:
        y = normed * expand(gamma) + expand(beta)
        gate = jax.nn.sigmoid(y)
        g = g * gate * (1.0 + y * (1.0 - gate))
    dbeta = g.sum((1, 2))
    dgamma = (g * normed).sum((1, 2))
    means = _group_mean(jnp.stack([gamma * dbeta, gamma * dgamma]), groups) / pixels
    dx = g * expand(gamma * rstd) - expand(rstd * means[0]) - normed * expand(rstd * means[1])
    return dx.astype(x.dtype), dgamma, dbeta


_with_own_gradient = jax.custom_vjp(_plain, nondiff_argnums=(3, 4))
_with_own_gradient.defvjp(_forward, _backward)
