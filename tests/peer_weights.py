"""Weights of torch modules in the layout of ours."""

import jax.numpy as jnp

from diffusion_eqx.nn import Conv, GroupNorm, Linear


def array(tensor):
    return jnp.asarray(tensor.detach().numpy())


def fill_randomly(module, *, scale: float = 0.08) -> None:
    """Noise on every weight, so that those which start at zero or one matter too."""
    import torch

    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += scale * torch.randn(parameter.shape, generator=generator)


def as_linear(ours: Linear, *theirs) -> Linear:
    """Several of theirs, side by side, are one of ours."""
    weight = jnp.concatenate([array(t.weight).T for t in theirs], axis=1)
    bias = jnp.concatenate([array(t.bias) for t in theirs])
    assert weight.shape == ours.weight.shape
    return _replaced(ours, weight=weight, bias=bias)


def as_conv(ours: Conv, theirs) -> Conv:
    weight = array(theirs.weight).transpose(2, 3, 1, 0)
    assert weight.shape == ours.weight.shape
    return _replaced(ours, weight=weight, bias=array(theirs.bias))


def as_norm(ours: GroupNorm, theirs) -> GroupNorm:
    assert (ours.groups, theirs.eps) == (theirs.num_groups, 1e-5)
    return _replaced(ours, gamma=array(theirs.weight), beta=array(theirs.bias))


def _replaced(module, **fields):
    import equinox as eqx

    names = list(fields)
    return eqx.tree_at(
        lambda m: [getattr(m, name) for name in names], module, [fields[name] for name in names]
    )
