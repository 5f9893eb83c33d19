"""Group normalisation with its scale, shift and SiLU in one pass (Wu & He 2018).

Per-channel sums of x and x² are folded into one scale and one shift for each (example, channel), so
the forward pass reads the image twice and writes it once. While training, a custom backward pass saves
only the input and the per-channel scale and shift and recomputes the rest; in inference mode plain
operations are used, which can be differentiated in forward mode too.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from diffusion_eqx._typing import Images

_EPSILON = 1e-5

PerChannel = Float[Array, "batch channels"]


class GroupNorm(eqx.Module):
    """silu(gamma·(x − mean)/std + beta), mean and std being those of each group of channels.

    `scale` and `shift`, if given, modulate each example (adaptive group normalisation, Dhariwal &
    Nichol 2021, eq. 3): gamma and beta become gamma·(1 + scale) and beta·(1 + scale) + shift.
    `silu=False` leaves out the nonlinearity.
    """

    gamma: Float[Array, " channels"]
    beta: Float[Array, " channels"]
    groups: int = eqx.field(static=True)
    silu: bool = eqx.field(static=True)
    inference: bool

    def __init__(self, channels: int, groups: int, *, silu: bool):
        if channels % groups:
            raise ValueError(f"{channels} channels cannot be divided into {groups} equal groups")
        self.gamma = jnp.ones(channels)
        self.beta = jnp.zeros(channels)
        self.groups = groups
        self.silu = silu
        self.inference = False

    def __call__(
        self, x: Images, scale: PerChannel | None = None, shift: PerChannel | None = None
    ) -> Images:
        """Shapes stay; `scale` and `shift` are (batch, channels)."""
        gamma = jnp.broadcast_to(self.gamma, (x.shape[0], x.shape[3]))
        beta = jnp.broadcast_to(self.beta, (x.shape[0], x.shape[3]))
        if scale is not None:
            gamma, beta = gamma * (1.0 + scale), beta * (1.0 + scale)
        if shift is not None:
            beta = beta + shift
        function = _plain if self.inference else _with_own_gradient
        return function(x, gamma, beta, self.groups, self.silu)


def largest_group_count(channels: int, at_most: int) -> int:
    """The largest number of equal groups, up to `at_most`, with at least four channels in each."""
    limit = max(1, min(at_most, channels // 4))
    return next(groups for groups in range(limit, 0, -1) if channels % groups == 0)


def _moments(x: Images, groups: int) -> tuple[PerChannel, PerChannel]:
    """Mean and 1/std of each channel's group, repeated for its channels: (batch, channels) each."""
    pixels = x.shape[1] * x.shape[2]
    x = x.astype(jnp.float32)
    first, second = _group_mean(jnp.stack([x.sum((1, 2)), (x * x).sum((1, 2))]), groups) / pixels
    # One pass can leave a variance of -1e-8 where the group is constant.
    variance = jnp.maximum(second - first * first, 0.0)
    return first, jax.lax.rsqrt(variance + _EPSILON)


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
    y = x * scale[:, None, None].astype(x.dtype) + shift[:, None, None].astype(x.dtype)
    return (jax.nn.silu(y) if silu else y), (x, gamma, beta, mean, rstd)


def _backward(groups, silu, saved, dy):
    """With x̂ = (x − mean)·rstd, y = gamma·x̂ + beta and g = dy·silu'(y):

    dbeta = Σ g, dgamma = Σ g·x̂ over pixels, and
    dx = rstd·(gamma·g − mean_group(gamma·g) − x̂·mean_group(gamma·g·x̂)),
    whose group means follow from dbeta and dgamma without another pass.
    """
    x, gamma, beta, mean, rstd = saved
    pixels = x.shape[1] * x.shape[2]

    def expand(a: PerChannel) -> Images:
        return a[:, None, None].astype(x.dtype)

    normed = (x - expand(mean)) * expand(rstd)
    g = dy
    if silu:
        y = normed * expand(gamma) + expand(beta)
        gate = jax.nn.sigmoid(y)
        g = dy * gate * (1.0 + y * (1.0 - gate))
    dbeta = g.astype(jnp.float32).sum((1, 2))
    dgamma = (g * normed).astype(jnp.float32).sum((1, 2))
    means = _group_mean(jnp.stack([gamma * dbeta, gamma * dgamma]), groups) / pixels
    dx = g * expand(gamma * rstd) - expand(rstd * means[0]) - normed * expand(rstd * means[1])
    return dx.astype(x.dtype), dgamma.astype(gamma.dtype), dbeta.astype(beta.dtype)


_with_own_gradient = jax.custom_vjp(_plain, nondiff_argnums=(3, 4))
_with_own_gradient.defvjp(_forward, _backward)
