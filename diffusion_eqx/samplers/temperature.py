"""The number that all stochastic samplers share."""

from typing import Any

from diffusion_eqx._values import number


def temperature() -> Any:
    """Declare `temperature`, the scale of the noise that steps add; 1 is the method as it is."""
    return number(1.0, minimum=0.0, maximum=10.0, about="scale of the fresh noise")
