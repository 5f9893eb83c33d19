"""Layers and backbones, each against its formula, another implementation or what it must depend on."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest

from diffusion_eqx.nn import (
    ACTIVATIONS,
    ClassEmbedding,
    Conv,
    GroupNorm,
    SpatialSelfAttention,
    TimeEmbedding,
    attend,
    self_attend,
    sinusoidal_features,
)
from tests.networks import BACKBONES, CLASSES, inputs, small_unet
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


def test_a_convolution_of_even_size_is_refused(getkey):
    with pytest.raises(ValueError, match="odd kernel_size"):
        Conv(1, 1, 2, key=getkey())


@pytest.mark.parametrize("inference", [False, True])
@pytest.mark.parametrize("activation", [None, "silu", "gelu"])
def test_group_norm_is_equinox_group_norm(activation, inference, getkey):
    function = None if activation is None else ACTIVATIONS[activation]
    ours = perturbed(GroupNorm(8, max_groups=2, activation=function), key=getkey())
    ours = eqx.nn.inference_mode(ours, inference)
    theirs = eqx.nn.GroupNorm(2, 8)
    theirs = eqx.tree_at(lambda n: (n.weight, n.bias), theirs, (ours.gamma, ours.beta))
    x = 3 + jax.random.normal(getkey(), (2, 5, 6, 8))
    expected = jax.vmap(theirs)(x.transpose(0, 3, 1, 2)).transpose(0, 2, 3, 1)
    expected = expected if function is None else function(expected)
    np.testing.assert_allclose(ours(x), expected, atol=1e-4)


@pytest.mark.parametrize("activation", [None, jax.nn.silu])
def test_group_norm_own_gradient_is_that_of_autodiff(activation, getkey):
    norm = perturbed(GroupNorm(8, max_groups=2, activation=activation), key=getkey())
    x = jax.random.normal(getkey(), (3, 4, 5, 8))
    scale, shift = jax.random.normal(getkey(), (2, 3, 8))

    def loss(arguments, inference):
        norm, x, scale, shift = arguments
        return jnp.sum(jnp.sin(eqx.nn.inference_mode(norm, inference)(x, scale, shift)))

    gradient = eqx.filter_jit(eqx.filter_grad(loss))
    own, autodiff = (gradient((norm, x, scale, shift), inference) for inference in (False, True))
    for a, b in zip(jax.tree.leaves(own), jax.tree.leaves(autodiff), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


@pytest.mark.parametrize("inference", [False, True])
def test_group_norm_survives_a_constant_image(inference):
    norm = eqx.nn.inference_mode(GroupNorm(4, max_groups=1, activation=jax.nn.silu), inference)
    x = jnp.full((1, 4, 4, 4), 100.0)
    np.testing.assert_array_equal(norm(x), np.zeros(x.shape))
    assert jnp.all(jnp.isfinite(jax.grad(lambda x: norm(x).sum())(x)))


@pytest.mark.parametrize("inference", [False, True])
@pytest.mark.parametrize("mean", [0.0, 100.0, 10_000.0])
def test_group_norm_keeps_its_digits_where_the_mean_is_large(mean, inference, getkey):
    """E[x²] − E[x]² in float32 would be wrong by 0.3 % at mean 100, and by 25 times at 10,000.

    The input is rounded first, so that only what the layer does is judged; the other channels of a group
    have means of their own.
    """
    norm = eqx.nn.inference_mode(GroupNorm(8, max_groups=2), inference)
    x = mean + jnp.arange(8.0)[None, None, None] + jax.random.normal(getkey(), (2, 28, 28, 8))
    exact = np.asarray(x, np.float64).reshape(2, 28 * 28, 2, 4)
    centred = exact - exact.mean((1, 3), keepdims=True)
    expected = centred / exact.std((1, 3), keepdims=True)
    # Near the mean of 10,000 a float32 has steps of 1e-3.
    found = np.asarray(norm(x), np.float64).reshape(expected.shape)
    scale = np.sum(found * expected, (1, 3)) / np.sum(expected**2, (1, 3))
    np.testing.assert_allclose(scale, 1.0, atol=2e-5)
    np.testing.assert_allclose(found, expected, atol=1e-4 + 2e-7 * mean)


def test_one_odd_pixel_first_does_no_harm(getkey):
    """The shift of the moments is the first pixel: the worst one is a border unlike all the rest."""
    x = 1000.0 + jax.random.normal(getkey(), (1, 32, 32, 4))
    x = x.at[:, 0, 0].set(0.0)
    exact = np.asarray(x, np.float64)
    expected = (exact - exact.mean()) / exact.std()
    np.testing.assert_allclose(GroupNorm(4, max_groups=1)(x), expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("channels", "at_most", "groups"),
    [(32, 8, 8), (16, 8, 4), (12, 8, 3), (7, 8, 1), (2, 8, 1), (24, 5, 4), (30, 4, 3)],
)
def test_groups_are_equal_and_have_four_channels_at_least(channels, at_most, groups):
    assert GroupNorm(channels, max_groups=at_most).groups == groups


def test_attention_is_that_of_jax(getkey):
    q, k, v = jax.random.normal(getkey(), (3, 2, 5, 3, 4))
    expected = jax.nn.dot_product_attention(q, k, v)
    heads_lead = [a.transpose(0, 2, 1, 3) for a in (q, k, v)]
    np.testing.assert_allclose(attend(*heads_lead).transpose(0, 2, 1, 3), expected, atol=1e-5)
    joined = jnp.stack([q, k, v], axis=2).reshape(2, 5, 36)
    np.testing.assert_allclose(self_attend(joined, 3), expected.reshape(2, 5, 12), atol=1e-5)


def test_channels_that_heads_do_not_divide_are_refused(getkey):
    with pytest.raises(ValueError, match="10 channels cannot be divided into 3"):
        SpatialSelfAttention(10, head_dim=3, norm_groups=1, key=getkey())


@pytest.mark.parametrize("size", [(28, 28), (7, 10), (5, 5), (1, 3)])
def test_unet_keeps_any_image_size(size, getkey):
    unet = small_unet(channels=(8, 8, 16), num_res_blocks=2)
    x = jnp.zeros((2, *size, 2))
    found = eqx.filter_eval_shape(unet, x, jnp.zeros(2), jnp.array([0, 3]))
    assert found.shape == x.shape


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_unet_depends_on_all_its_inputs(activation):
    unet = small_unet(
        channels=(8, 16), activation=ACTIVATIONS[activation], attention_levels=(0,), head_dim=8
    )
    check_dependence(eqx.filter_jit(unet), (6, 4, 2))


@pytest.mark.parametrize("name", ["dit", "mlp"])
def test_backbones_depend_on_all_their_inputs(name):
    make, shape = BACKBONES[name]
    check_dependence(eqx.filter_jit(make()), shape)


def check_dependence(network, shape):
    x, t, _ = inputs(shape, batch=2)
    label = jnp.array([1, 1])
    base = network(x, t, label)
    for other in (network(x + 0.1, t, label), network(x, t + 100, label), network(x, t, label + 1)):
        assert float(jnp.abs(other - base).max(axis=range(1, x.ndim)).min()) > 1e-4


@pytest.mark.parametrize("name", BACKBONES)
def test_no_condition_is_the_null_label(name):
    make, shape = BACKBONES[name]
    network = eqx.filter_jit(make())
    x, t, _ = inputs(shape)
    null = jnp.full(3, CLASSES)
    np.testing.assert_allclose(network(x, t, None), network(x, t, null), atol=1e-6)
    assert float(jnp.abs(network(x, t, None) - network(x, t, null - 1)).max()) > 1e-4


@pytest.mark.parametrize("name", BACKBONES)
def test_labels_for_a_network_without_classes_are_refused(name):
    make, shape = BACKBONES[name]
    x, t, labels = inputs(shape)
    with pytest.raises(ValueError, match="no class embedding"):
        make(num_classes=None)(x, t, labels)


@pytest.mark.parametrize("name", BACKBONES)
@pytest.mark.parametrize("label", [-1, CLASSES + 1, 99])
def test_labels_out_of_range_are_refused(name, label):
    """Indexing alone would clamp them, or count from the end, in silence."""
    make, shape = BACKBONES[name]
    x, t, _ = inputs(shape)
    network, labels = make(), jnp.array([0, label, 1])
    with pytest.raises(ValueError, match=r"labels must be in 0 … 2, or 3 for 'no class'"):
        network(x, t, labels)
    # Known while tracing, although the rest is not.
    with pytest.raises(ValueError, match="labels must be in"):
        jax.jit(lambda x: network(x, t, labels))(x)
    # Inside a compiled function nobody can know.
    assert eqx.filter_eval_shape(network, x, t, labels).shape == x.shape


@pytest.fixture
def _unchecked():
    """As for users, whose calls no type checker sees."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.mark.usefixtures("_unchecked")
@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.ones(1, np.int32), r"each of the 3 examples, shape \(3,\); got shape \(1,\)"),
        (np.ones((3, 1), np.int32), r"got shape \(3, 1\)"),
        (np.ones(3, np.float32), "integer labels.* got float32"),
        ({"label": np.ones(3, np.int32), "y": 0.0}, "integer labels.* got dict"),
        (2, "integer labels.* got int"),
    ],
)
def test_what_are_no_labels_is_refused(labels, message, getkey):
    with pytest.raises(ValueError, match=message):
        ClassEmbedding(3, 4, key=getkey())(labels, 3)


def test_labels_of_any_integer_type(getkey):
    embedding = ClassEmbedding(3, 4, key=getkey())
    for dtype in (jnp.int8, jnp.uint8, jnp.int32):
        np.testing.assert_array_equal(
            embedding(jnp.array([2, 0], dtype), 2), embedding.table[np.array([2, 0])]
        )
    assert embedding(jnp.zeros(0, jnp.int32), 0).shape == (0, 4)


def test_dropout_needs_a_key_and_ends_with_inference(getkey):
    unet = small_unet(dropout=0.5)
    x, t, _ = inputs((6, 4, 2))
    with pytest.raises(RuntimeError, match="key"):
        eqx.filter_eval_shape(unet, x, t)
    run = eqx.filter_jit(lambda unet, key: unet(x, t, key=key))
    assert float(jnp.abs(run(unet, getkey()) - run(unet, getkey())).max()) > 1e-4
    quiet = eqx.nn.inference_mode(unet)
    np.testing.assert_allclose(run(quiet, None), run(quiet, getkey()), atol=1e-6)


def test_unet_is_differentiable_jittable_and_vmappable(getkey):
    unet = small_unet(channels=(8, 16))
    x, t = jax.random.normal(getkey(), (3, 2, 7, 10, 2)), jnp.zeros(2)
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


def test_time_features_are_cos_and_sin():
    features = sinusoidal_features(jnp.array([0.0, 2.0]), 4)
    expected = [[1, 1, 0, 0], [np.cos(2), np.cos(0.02), np.sin(2), np.sin(0.02)]]
    np.testing.assert_allclose(features, expected, atol=1e-6)


def test_an_odd_number_of_time_features_is_refused(getkey):
    with pytest.raises(ValueError, match="even number"):
        TimeEmbedding(5, key=getkey())
    with pytest.raises(ValueError, match="even number"):
        sinusoidal_features(jnp.zeros(1), 3)
