"""What a difference between output and target costs, entry by entry."""

from collections.abc import Callable

import jax.numpy as jnp
import optax
from jaxtyping import Array

# `huber` is quadratic up to 1 and a straight line of slope 1 beyond (Huber 1964); `pseudo_huber` is smooth
# between the two, sqrt(1 + d²) − 1 (Charbonnier et al. 1997; Song & Dhariwal 2024, section 3.3).
ERRORS: dict[str, Callable[[Array, Array], Array]] = {
    "mse": lambda output, target: (output - target) ** 2,
    "l1": lambda output, target: jnp.abs(output - target),
    "huber": lambda output, target: optax.losses.huber_loss(output, target),
    "pseudo_huber": lambda output, target: jnp.sqrt(1.0 + (output - target) ** 2) - 1.0,
}
