"""Numbers of guidance that differ from example to example, such as a scale for each image."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from diffusion_eqx._values import AbstractValue, declared_numbers, held_at
from diffusion_eqx.denoiser import AbstractDenoiser
from diffusion_eqx.guidance import AbstractTwoBranchGuidance, guidance_of
from diffusion_eqx.samplers.base import AbstractSampler


def set_apart(denoiser: AbstractDenoiser, count: int) -> tuple[AbstractDenoiser, Any]:
    """The denoiser without those numbers of its guidance that hold one entry for each example, and a
    tree of these alone, which `equinox.combine` joins again; None if there are none.

    **Raises:** `ValueError` for an array of another shape than () or (count,), and for numbers of each
    example in guidance within guidance by two branches, which asks about twice as many examples at once.
    """
    places = []
    depth, within_two_branches = (), False
    for guidance in guidance_of(denoiser):
        for path, held in _several(guidance):
            name = f"{type(guidance).__name__}'s {path[-1]}"
            if jnp.shape(held) != (count,):
                raise ValueError(
                    f"{name} has shape {jnp.shape(held)}, but {count} examples are drawn; give one number "
                    f"for all, or an array of shape ({count},), one for each"
                )
            if within_two_branches:
                raise ValueError(
                    f"{name} differs from example to example within guidance by two branches, which asks "
                    "about all examples twice at once; give one number for all, or put this guidance "
                    "around the other"
                )
            places.append((*depth, "guidance", *path))
        within_two_branches |= isinstance(guidance, AbstractTwoBranchGuidance)
        depth = (*depth, "denoiser")
    if not places:
        return denoiser, None
    chosen = eqx.tree_at(
        lambda tree: [held_at(tree, place) for place in places],
        jax.tree.map(lambda _: False, denoiser),
        replace_fn=lambda _: True,
    )
    own, shared = eqx.partition(denoiser, chosen)
    return shared, jax.tree.map(jnp.asarray, own)


def check_one_for_all(sampler: AbstractSampler) -> None:
    """**Raises:** `ValueError` if a number of the sampler is not one for all examples."""
    for path, held in _several(sampler):
        raise ValueError(
            f"{type(sampler).__name__}'s {path[-1]} has shape {jnp.shape(held)}, but is one number for "
            "all examples; to try several, draw under jax.vmap over them"
        )


def _several(part: AbstractValue) -> list[tuple[Any, Any]]:
    """(path, value) of the declared numbers that are not one number, nor a function that gives one."""
    declared = declared_numbers(part)
    return [(path, held) for path, _, held in declared if not callable(held) and jnp.ndim(held)]
