"""Guidance by name, for command lines and configurations."""

from diffusion_eqx.guidance.base import AbstractGuidance
from diffusion_eqx.guidance.branches import (
    AdaptiveProjectedGuidance,
    CFGPlusPlusGuidance,
    ClassifierFreeGuidance,
)

# Those that need nothing but a condition and the denoiser's null.
GUIDANCE: dict[str, AbstractGuidance] = {
    "cfg": ClassifierFreeGuidance(),
    "cfg++": CFGPlusPlusGuidance(),
    "apg": AdaptiveProjectedGuidance(),
}


def find_guidance(name: str) -> AbstractGuidance:
    """The guidance of that name, with its defaults.

    **Raises:** `ValueError` that lists what there is.
    """
    if name not in GUIDANCE:
        raise ValueError(
            f"unknown guidance {name!r}; choose one of {', '.join(GUIDANCE)}, or give a "
            "guidance as an object"
        )
    return GUIDANCE[name]
