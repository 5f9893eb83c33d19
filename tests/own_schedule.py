"""A schedule such as a user writes, with a number that may be chosen."""

import jax.numpy as jnp

from diffusion_eqx.schedules import AbstractSchedule, number


class OwnSchedule(AbstractSchedule):
    """alpha = cos(pi/2·t^power), and sigma by the sine."""

    power: float = number(1.0, minimum=0.5, maximum=2.0, about="power of the angle")

    def alpha(self, t):
        return jnp.cos(0.5 * jnp.pi * t**self.power)

    def sigma(self, t):
        return jnp.sin(0.5 * jnp.pi * t**self.power)
