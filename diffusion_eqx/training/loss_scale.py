"""The factor that keeps gradients in float16 from vanishing."""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

from diffusion_eqx._typing import Scalar

_START, _LEAST, _GREATEST = 2.0**15, 1.0, 2.0**24
_FACTOR = 2.0


class LossScale(eqx.Module):
    """The loss is multiplied by `value`, and the gradient divided by it.

    A step whose gradient overflows is skipped and halves the value; `growth_interval` good ones double it.
    Source: Micikevicius et al. (2018), "Mixed precision training", section 3.2.

    - `value`: from 1 to 2^24.
    - `good`: good steps since it changed.
    - `running`: skipped steps since the last good one.
    """

    value: Scalar
    good: Int[Array, ""]
    running: Int[Array, ""]
    growth_interval: int = eqx.field(static=True)

    @classmethod
    def start(cls, growth_interval: int) -> "LossScale":
        """2^15, as is usual."""
        # Two arrays, lest donating them frees one buffer twice.
        good, running = jnp.zeros((), jnp.int32), jnp.zeros((), jnp.int32)
        return cls(jnp.asarray(_START, jnp.float32), good, running, growth_interval)

    def after(self, ok: Bool[Array, ""]) -> "LossScale":
        """The scale after a step that was good, or was skipped."""
        grows = ok & (self.good + 1 >= self.growth_interval)
        raised = jnp.where(grows, self.value * _FACTOR, self.value)
        value = jnp.clip(jnp.where(ok, raised, self.value / _FACTOR), _LEAST, _GREATEST)
        good = jnp.where(ok & ~grows, self.good + 1, 0)
        running = jnp.where(ok, 0, self.running + 1)
        return LossScale(value, good, running, self.growth_interval)

    def exhausted(self, patience: int) -> Bool[Array, ""]:
        """Whether even the least scale gave `patience` overflows in a row: then it is divergence."""
        return (self.value <= _LEAST) & (self.running >= patience)
