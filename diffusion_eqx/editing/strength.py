"""How far back an edit begins."""

import math


def begin_index(strength: float, steps: int) -> int:
    """The index of a grid of `steps` steps from which the share `strength` of them is left to take.

    steps − strength·steps, rounded, with one step at the least.

    **Raises:** `ValueError` if strength is outside (0, 1], or `steps` < 1.
    """
    if not 0.0 < strength <= 1.0:
        raise ValueError(f"strength must be in (0, 1]; got {strength}")
    if steps < 1:
        raise ValueError(f"steps must be at least 1; got {steps}")
    return steps - max(1, math.floor(strength * steps + 0.5))
