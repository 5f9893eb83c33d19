"""Networks in bfloat16, float16 and float64, with strict promotion of dtypes and ranks."""

import contextlib

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion_eqx.nn import (
    ACTIVATIONS,
    Conv,
    GroupNorm,
    LatentDistribution,
    Linear,
    attend,
    modulated_norm,
    sinusoidal_features,
)
from diffusion_eqx.precision import at_edge, cast, dtype_of, wide
from diffusion_eqx.schedules import DiscreteSchedule, cosine_betas
from tests.networks import BACKBONES, inputs, small_autoencoder, small_mlp

# Of the outputs' and gradients' own size: three digits of bfloat16, ten bits of float16.
LOW = {"bfloat16": 0.05, "float16": 0.01}


@pytest.fixture(autouse=True)
def _strict():
    """Nothing in these tests may promote a dtype or a rank unless the code says so."""
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        yield


# One function for all tests: what one of them compiles, the others use.
@eqx.filter_jit
def evaluated(network, x, c_noise, labels):
    """Half the mean square of the output, its gradient for weights, x and c_noise, and the output."""

    @eqx.filter_value_and_grad(has_aux=True)
    def loss(arguments):
        network, x, c_noise = arguments
        output = network(x, c_noise, labels)
        return 0.5 * jnp.mean(output.astype(wide(output.dtype)) ** 2), output

    (value, output), gradients = loss((network, x, c_noise))
    return value, gradients, output


@eqx.filter_jit
def encoded(autoencoder, x):
    """Gradient of a loss of both halves for the weights, the latents' mean, and what is decoded."""

    @eqx.filter_grad(has_aux=True)
    def gradient(autoencoder):
        latents = autoencoder.encode_distribution(x)
        decoded = autoencoder.decode(latents.sample(key=jax.random.key(0)))
        square = decoded.astype(wide(decoded.dtype)) ** 2
        return square.mean() + latents.divergence().mean(), (latents.mean, decoded)

    return gradient(autoencoder)


def relative_error(found, expected) -> float:
    """The root of the squared error over that of the squares, in double precision."""
    found, expected = (np.asarray(a, np.float64).ravel() for a in (found, expected))
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


def flat(tree) -> np.ndarray:
    return np.concatenate([np.asarray(leaf, np.float64).ravel() for leaf in jax.tree.leaves(tree)])


def dtypes(tree) -> set[str]:
    return {str(leaf.dtype) for leaf in jax.tree.leaves(tree)}


@pytest.mark.parametrize("name", BACKBONES)
@pytest.mark.parametrize("dtype", LOW)
def test_a_backbone_in_low_precision_is_close_to_itself_in_float32(name, dtype):
    make, shape = BACKBONES[name]
    network = make()
    x, c_noise, labels = inputs(shape)
    _, expected_gradients, expected = evaluated(network, x, c_noise, labels)
    _, gradients, found = evaluated(cast(network, dtype), x.astype(dtype), c_noise, labels)
    assert dtypes((found, gradients[:2])) == {dtype}
    assert np.all(np.isfinite(flat(gradients)))
    assert relative_error(found, expected) < LOW[dtype]
    assert relative_error(flat(gradients[0]), flat(expected_gradients[0])) < 3 * LOW[dtype]


@pytest.mark.parametrize("name", BACKBONES)
def test_a_backbone_in_float64_truncates_nothing(name):
    make, shape = BACKBONES[name]
    network = make()
    x, c_noise, labels = inputs(shape)
    _, expected_gradients, expected = evaluated(network, x, c_noise, labels)
    with jax.enable_x64(True):
        network = cast(network, jnp.float64)
        x, c_noise = x.astype(jnp.float64), c_noise.astype(jnp.float64)
        value, gradients, found = evaluated(network, x, c_noise, labels)
        assert dtypes((value, found, gradients)) == {"float64"}
        assert relative_error(found, expected) < 1e-5
        assert relative_error(flat(gradients[0]), flat(expected_gradients[0])) < 1e-5

        # Had anything been rounded to float32, the loss would move in jumps of 1e-8, or not at all.
        tiny = 1e-7
        moved = evaluated(network, x + tiny, c_noise, labels)[0] - value
        np.testing.assert_allclose(moved / tiny, gradients[1].sum(), rtol=1e-4)
        moved = evaluated(network, x, c_noise + tiny, labels)[0] - value
        np.testing.assert_allclose(moved / tiny, gradients[2].sum(), rtol=1e-4)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float64"])
def test_an_autoencoder_runs_in_every_precision(dtype):
    autoencoder = small_autoencoder()
    x = inputs((6, 4, 2))[0]
    expected_gradients, expected = encoded(autoencoder, x)
    with jax.enable_x64(True) if dtype == "float64" else contextlib.nullcontext():
        gradients, found = encoded(cast(autoencoder, dtype), x.astype(dtype))
        assert dtypes((gradients, found)) == {dtype}
        assert np.all(np.isfinite(flat(gradients)))
        if dtype == "float64":
            # The noise is another one, and so is all that follows from it.
            assert relative_error(found[0], expected[0]) < 1e-5
            return
        assert relative_error(flat(found), flat(expected)) < 3 * LOW[dtype]
        assert relative_error(flat(gradients), flat(expected_gradients)) < 3 * LOW[dtype]


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_every_activation_keeps_the_dtype(activation):
    norm = cast(GroupNorm(8, max_groups=2, activation=ACTIVATIONS[activation]), jnp.bfloat16)
    x = inputs((4, 4, 8))[0].astype(jnp.bfloat16)
    assert norm(x).dtype == jnp.bfloat16


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_moments_are_computed_in_float32(dtype):
    """The mean of 4096 numbers near 100: their sum overflows float16, and bfloat16 has three digits."""
    x = (100.0 + inputs((32, 32, 4))[0]).astype(dtype)
    exact = np.asarray(x, np.float64)
    mean, std = (f(exact, axis=(1, 2, 3), keepdims=True) for f in (np.mean, np.std))
    found = cast(GroupNorm(4, max_groups=1), dtype)(x)
    np.testing.assert_allclose(
        np.asarray(found, np.float64), (exact - mean) / std, rtol=0.01, atol=0.01
    )
    tokens = x.reshape(3, 4, 1024)
    zeros = jnp.zeros((3, 1024), dtype)
    exact = np.asarray(tokens, np.float64)
    expected = (exact - exact.mean(-1, keepdims=True)) / exact.std(-1, keepdims=True)
    found = np.asarray(modulated_norm(tokens, zeros, zeros), np.float64)
    np.testing.assert_allclose(found, expected, rtol=0.01, atol=0.01)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_attention_and_its_gradient_in_low_precision(dtype, getkey):
    """Softmax over 300 tokens: in bfloat16 its sum would stop at 256 ones."""
    q, k, v = jax.random.normal(getkey(), (3, 2, 2, 300, 4))
    q = 0.0 * q

    def total(q, k, v):
        return jnp.sum(jnp.sin(attend(q, k, v).astype(jnp.float32)))

    expected = attend(q, k, v)
    low = [a.astype(dtype) for a in (q, k, v)]
    assert relative_error(attend(*low), expected) < LOW[dtype]
    found = jax.jit(jax.grad(total, argnums=(0, 1, 2)))(*low)
    for a, b in zip(found, jax.grad(total, argnums=(0, 1, 2))(q, k, v), strict=True):
        assert a.dtype == dtype
        np.testing.assert_allclose(
            np.asarray(a, np.float64), b, atol=LOW[dtype] * (0.1 + float(jnp.abs(b).max()))
        )


def test_large_timesteps_stay_apart_in_bfloat16():
    """999 in bfloat16 is 1000: the features of the noise level must be computed before the cast."""
    network = cast(small_mlp(), jnp.bfloat16)
    x = jnp.ones((2, 5), jnp.bfloat16)
    output = network(x, jnp.array([999.0, 1000.0]))
    assert float(jnp.abs(output[0] - output[1]).max()) > 0
    features = sinusoidal_features(jnp.array([999.0]), 4)
    np.testing.assert_allclose(
        features, [[np.cos(999), np.cos(9.99), np.sin(999), np.sin(9.99)]], atol=1e-4
    )


@pytest.mark.parametrize("layer", ["linear", "conv"])
def test_a_layer_refuses_an_input_of_another_precision(layer, getkey):
    made, shape = {
        "linear": (Linear(2, 3, key=getkey()), (1, 2)),
        "conv": (Conv(2, 3, 3, key=getkey()), (1, 4, 4, 2)),
    }[layer]
    with pytest.raises(TypeError, match=r"weights are bfloat16 and its input is float32"):
        cast(made, jnp.bfloat16)(jnp.ones(shape))


def test_float32_code_calls_a_network_at_its_edge():
    network = cast(small_mlp(), jnp.bfloat16)
    x, c_noise, labels = inputs((5,))
    output = at_edge(network, x, c_noise, labels)
    assert output.dtype == jnp.float32
    inside = network(x.astype(jnp.bfloat16), c_noise, labels)
    np.testing.assert_array_equal(output, inside.astype(jnp.float32))


def test_the_edge_casts_what_a_network_may_compute_with(getkey):
    """Floating-point arrays of the condition, but neither the noise level nor integers."""

    class Seen(eqx.Module):
        weight: jax.Array

        def __call__(self, x, c_noise, cond, *, key=None):
            assert (x.dtype, c_noise.dtype) == (self.weight.dtype, jnp.float32)
            assert cond["picture"].dtype == self.weight.dtype
            assert cond["label"].dtype == jnp.int32
            return self.weight * x

    x, cond = jnp.ones((2, 3)), {"picture": jnp.ones((2, 4)), "label": jnp.arange(2)}
    network = Seen(jnp.full((2, 3), 2.0, jnp.float16))
    output = at_edge(network, x, jnp.ones(2), cond, key=getkey())
    np.testing.assert_array_equal(output, 2.0 * x)
    assert at_edge(network, x.astype(jnp.bfloat16), jnp.ones(2), cond).dtype == jnp.bfloat16

    def function(x, c_noise, cond, *, key=None):
        return x

    assert at_edge(function, x, jnp.ones(2)) is not None


def test_casting_leaves_what_is_no_weight(getkey):
    schedule = DiscreteSchedule(cosine_betas(10))
    tree = {
        "network": Linear(2, 3, key=getkey()),
        "schedule": schedule,
        "key": getkey(),
        "count": jnp.arange(3),
        "complex": jnp.ones(2, jnp.complex64),
        "numpy": np.ones(2, np.float32),
        "number": 0.5,
        "function": jax.nn.silu,
    }
    found = cast(tree, jnp.bfloat16)
    assert found["network"].weight.dtype == found["numpy"].dtype == jnp.bfloat16
    assert found["schedule"] is schedule
    for name in ("key", "count", "complex", "number", "function"):
        assert found[name] is tree[name]
    assert eqx.tree_equal(cast(tree, jnp.float32), tree)


@pytest.mark.parametrize(
    ("dtype", "message"), [(jnp.int32, "floating-point dtype"), (jnp.float64, "jax_enable_x64")]
)
def test_a_dtype_that_weights_cannot_have_is_refused(dtype, message):
    with pytest.raises(ValueError, match=message):
        cast({"weight": jnp.ones(2)}, dtype)


def test_the_dtype_of_a_network():
    def of(*dtypes):
        return dtype_of([jnp.ones(1, dtype) for dtype in dtypes])

    assert of() is None
    assert dtype_of(jax.nn.silu) is None
    assert of("bfloat16") == jnp.bfloat16
    assert of("int32", "float16") == jnp.float16
    assert of("bfloat16", "float32") == jnp.float32
    assert of("bfloat16", "float16") == jnp.float32
    # A schedule's table is float32 and no weight.
    assert dtype_of([DiscreteSchedule(cosine_betas(10)), jnp.ones(1, "float16")]) == jnp.float16
    with jax.enable_x64(True):
        assert of("float64", "bfloat16") == jnp.float64


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_the_noise_of_latents_is_the_same_in_every_low_precision(dtype, getkey):
    mean, log_variance = jnp.zeros((1, 2, 2, 1)), jnp.full((1, 2, 2, 1), 15.0)
    key = getkey()
    expected = LatentDistribution(mean, log_variance).sample(key=key)
    low = LatentDistribution(mean.astype(dtype), log_variance.astype(dtype))
    assert relative_error(low.sample(key=key), expected) < LOW[dtype]
    # exp(15) is beyond float16.
    assert jnp.all(jnp.isfinite(low.divergence()))
