import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion_eqx.config import UNetBackboneConfig
from diffusion_eqx.models.build import attention_levels, build_unet
from diffusion_eqx.nn import Conv, GroupNorm, UNet, sinusoidal_features
from tests.perturbed import perturbed


@pytest.mark.parametrize(("kernel", "stride", "size"), [(3, 1, 6), (3, 2, 7), (1, 1, 5)])
def test_conv_is_equinox_conv(kernel, stride, size, getkey):
    ours = Conv(3, 5, kernel, stride=stride, key=getkey())
    theirs = eqx.nn.Conv2d(3, 5, kernel, stride, padding=(kernel - 1) // 2, key=getkey())
    theirs = eqx.tree_at(
        lambda c: (c.weight, c.bias),
        theirs,
        (ours.weight.transpose(3, 2, 0, 1), ours.bias[:, None, None]),
    )
    x = jax.random.normal(getkey(), (2, size, size + 1, 3))
    expected = jax.vmap(theirs)(x.transpose(0, 3, 1, 2)).transpose(0, 2, 3, 1)
    np.testing.assert_allclose(ours(x), expected, atol=1e-5)


@pytest.mark.parametrize("inference", [False, True])
@pytest.mark.parametrize("silu", [False, True])
def test_group_norm_is_equinox_group_norm(silu, inference, getkey):
    ours = perturbed(GroupNorm(8, 2, silu=silu), key=getkey())
    ours = eqx.nn.inference_mode(ours, inference)
    theirs = eqx.nn.GroupNorm(2, 8)
    theirs = eqx.tree_at(lambda n: (n.weight, n.bias), theirs, (ours.gamma, ours.beta))
    x = 3 + jax.random.normal(getkey(), (2, 5, 6, 8))
    expected = jax.vmap(theirs)(x.transpose(0, 3, 1, 2)).transpose(0, 2, 3, 1)
    expected = jax.nn.silu(expected) if silu else expected
    np.testing.assert_allclose(ours(x), expected, atol=1e-4)


@pytest.mark.parametrize("silu", [False, True])
def test_group_norm_own_gradient_is_that_of_autodiff(silu, getkey):
    norm = perturbed(GroupNorm(8, 2, silu=silu), key=getkey())
    x = jax.random.normal(getkey(), (3, 4, 5, 8))
    scale, shift = jax.random.normal(getkey(), (2, 3, 8))

    def loss(arguments, inference):
        norm, x, scale, shift = arguments
        return jnp.sum(jnp.sin(eqx.nn.inference_mode(norm, inference)(x, scale, shift)))

    own, autodiff = (
        eqx.filter_grad(loss)((norm, x, scale, shift), inference) for inference in (False, True)
    )
    for a, b in zip(jax.tree.leaves(own), jax.tree.leaves(autodiff), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


def test_group_norm_survives_a_constant_image(getkey):
    norm = GroupNorm(4, 1, silu=True)
    gradient = jax.grad(lambda x: norm(x).sum())(jnp.full((1, 4, 4, 4), 100.0))
    assert jnp.all(jnp.isfinite(gradient))


def small_unet(key, **changes) -> UNet:
    settings = {"hidden_dims": (8, 16), "time_embedding_dim": 16, "num_classes": 3} | changes
    size = settings.pop("size", (7, 10))
    return build_unet(UNetBackboneConfig(**settings), size, key=key)


@pytest.mark.parametrize("size", [(28, 28), (7, 10), (5, 5), (1, 3)])
def test_unet_keeps_any_image_size(size, getkey):
    unet = small_unet(getkey(), hidden_dims=(8, 8, 16), size=size)
    x = jnp.zeros((2, *size, 1))
    assert unet(x, jnp.zeros(2), jnp.array([0, 3])).shape == x.shape


@pytest.mark.parametrize("activation", ["silu", "gelu", "relu", "mish", "tanh"])
def test_unet_depends_on_all_its_inputs(activation, getkey):
    unet = perturbed(
        small_unet(getkey(), activation=activation, attention_resolutions=(10,)), key=getkey()
    )
    x, t, label = (
        jax.random.normal(getkey(), (2, 7, 10, 1)),
        jnp.array([3.0, 3.0]),
        jnp.array([1, 1]),
    )
    base = unet(x, t, label)
    for other in (unet(x + 0.1, t, label), unet(x, t + 100, label), unet(x, t, label + 1)):
        assert float(jnp.abs(other - base).max()) > 1e-4


def test_no_label_is_the_null_label(getkey):
    unet = perturbed(small_unet(getkey()), key=getkey())
    x, t = jax.random.normal(getkey(), (2, 7, 10, 1)), jnp.zeros(2)
    np.testing.assert_allclose(unet(x, t, None), unet(x, t, jnp.array([3, 3])), atol=1e-6)


def test_labels_for_an_unconditional_unet_are_refused(getkey):
    unet = small_unet(getkey(), num_classes=None)
    with pytest.raises(ValueError, match="no class embedding"):
        unet(jnp.zeros((1, 7, 10, 1)), jnp.zeros(1), jnp.array([0]))


def test_dropout_needs_a_key_and_ends_with_inference(getkey):
    unet = perturbed(small_unet(getkey(), dropout=0.5), key=getkey())
    x, t = jax.random.normal(getkey(), (1, 7, 10, 1)), jnp.zeros(1)
    with pytest.raises(RuntimeError, match="key"):
        unet(x, t)
    assert float(jnp.abs(unet(x, t, key=getkey()) - unet(x, t, key=getkey())).max()) > 1e-4
    quiet = eqx.nn.inference_mode(unet)
    np.testing.assert_array_equal(quiet(x, t), quiet(x, t, key=getkey()))


def test_unet_is_differentiable_jittable_and_vmappable(getkey):
    unet = perturbed(small_unet(getkey()), key=getkey())
    x, t = jax.random.normal(getkey(), (3, 2, 7, 10, 1)), jnp.zeros(2)
    stacked = eqx.filter_jit(eqx.filter_vmap(lambda x: unet(x, t)))(x)
    np.testing.assert_allclose(stacked[1], eqx.filter_jit(unet)(x[1], t), atol=1e-4)
    quiet = eqx.filter_jit(eqx.nn.inference_mode(unet))
    forward = jax.jvp(lambda x: quiet(x, t), (x[0],), (x[1],))[1]
    step = 1e-2
    numeric = (quiet(x[0] + step * x[1], t) - quiet(x[0] - step * x[1], t)) / (2 * step)
    np.testing.assert_allclose(forward, numeric, atol=2e-2)
    grads = eqx.filter_jit(eqx.filter_grad(lambda u: jnp.sum(u(x[0], t) ** 2)))(unet)
    leaves = jax.tree.leaves(eqx.filter(grads, eqx.is_array))
    assert all(jnp.all(jnp.isfinite(g)) for g in leaves)
    assert sum(float(jnp.abs(g).max()) > 0 for g in leaves) > 0.95 * len(leaves)


@pytest.mark.parametrize(
    ("resolutions", "size", "levels"),
    [
        ((16, 8), 28, (1, 2)),
        ((14,), 28, (1,)),
        ((16, 8), 32, (1, 2)),
        ((), 32, ()),
        ((32,), 28, (0,)),
    ],
)
def test_attention_resolutions_pick_levels(resolutions, size, levels):
    config = UNetBackboneConfig(hidden_dims=(8, 16, 32), attention_resolutions=resolutions)
    assert attention_levels(config, (size, size)) == levels


def test_an_attention_resolution_of_no_level_is_refused():
    config = UNetBackboneConfig(hidden_dims=(8, 16), attention_resolutions=(4,))
    with pytest.raises(ValueError, match=r"sizes \[28, 14\]"):
        attention_levels(config, (28, 28))


def test_time_features_are_cos_and_sin():
    features = sinusoidal_features(jnp.array([0.0, 2.0]), 4)
    expected = [[1, 1, 0, 0], [np.cos(2), np.cos(0.02), np.sin(2), np.sin(0.02)]]
    np.testing.assert_allclose(features, expected, atol=1e-6)
