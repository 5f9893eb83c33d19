"""How uncertain the loss at each level is, learnt beside the network."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from diffusion_eqx._typing import PRNGKey
from diffusion_eqx.nn import Linear
from diffusion_eqx.schedules import NoiseLevel

_FEATURES = 128


class Uncertainty(eqx.Module):
    """u(log-SNR), which makes of each loss l the loss l·exp(−u) + u (Karras et al. 2024, eq. 21).

    At the optimum exp(u) is the mean loss at the level, so that all levels count alike in the gradient, and
    the weight on the error cancels. One linear layer over random Fourier features; u is 0 at the start.
    """

    frequencies: Float[Array, " features"]
    phases: Float[Array, " features"]
    out: Linear

    def __init__(self, *, key: PRNGKey):
        key_frequency, key_phase, key_out = jax.random.split(key, 3)
        self.frequencies = jax.random.normal(key_frequency, (_FEATURES,))
        self.phases = jax.random.uniform(key_phase, (_FEATURES,))
        self.out = Linear(_FEATURES, 1, key=key_out, zero=True)

    def __call__(self, level: NoiseLevel) -> Float[Array, " batch"]:
        """u of each level, (batch,)."""
        # The scale of what EDM networks are told: log(s)/4.
        told = (-0.25 * level.lam).astype(self.frequencies.dtype)
        frequencies = jax.lax.stop_gradient(self.frequencies)
        phases = jax.lax.stop_gradient(self.phases)
        angle = 2.0 * jnp.pi * (told[:, None] * frequencies[None] + phases[None])
        features = jnp.sqrt(2.0).astype(angle.dtype) * jnp.cos(angle)
        return self.out(features)[:, 0].astype(level.time.dtype)
