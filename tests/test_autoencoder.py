"""Autoencoders: shapes, losses, training, and the scale of what they encode."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate, stats

from diffusion_eqx.config import AutoencoderConfig, TrainingConfig
from diffusion_eqx.data import digits
from diffusion_eqx.evaluation import peak_signal_to_noise_ratio
from diffusion_eqx.losses import Draws
from diffusion_eqx.models import build_autoencoder
from diffusion_eqx.nn import LatentDistribution, ResBlock
from diffusion_eqx.random_keys import NOISE
from diffusion_eqx.training import (
    AutoencoderLoss,
    measure_scale_factor,
    train_autoencoder,
)
from tests.filled import filled

DIGITS = AutoencoderConfig(
    input_shape=(8, 8, 1),
    encoder_hidden_dims=(8, 8),
    decoder_hidden_dims=(8, 8),
    latent_channels=2,
)


@pytest.mark.parametrize(
    ("kind", "shape", "latent"),
    [
        ("simple", (28, 28, 1), (7, 7, 5)),
        ("vae", (32, 32, 3), (8, 8, 5)),
        ("vae", (13, 6, 2), (4, 2, 5)),
    ],
)
def test_any_size_is_encoded_and_decoded(kind, shape, latent, getkey):
    config = AutoencoderConfig(
        input_shape=shape,
        encoder_type=kind,
        latent_channels=5,
        encoder_hidden_dims=(4, 4, 8),
        decoder_hidden_dims=(8, 4, 4),
    )
    autoencoder = filled(build_autoencoder, config)
    x = jax.random.uniform(getkey(), (2, *shape), minval=-1)
    assert config.latent_shape == autoencoder.latent_shape == latent

    @jax.jit
    def run(x):
        found = autoencoder.encode_distribution(x)
        z = autoencoder.encode(x)
        gradients = (
            jax.grad(lambda x: jnp.sum(autoencoder.encode(x) ** 2))(x),
            jax.grad(lambda z: jnp.sum(autoencoder.decode(z) ** 2))(z),
        )
        return found, z, autoencoder.decode(z), autoencoder.decode(z[1:]), gradients

    found, z, decoded, second, gradients = run(x)
    assert z.shape == (2, *latent)
    np.testing.assert_array_equal(z, found.mean)
    assert (found.log_variance is None) == (kind == "simple")
    assert decoded.shape == x.shape
    np.testing.assert_allclose(second, decoded[1:], atol=1e-5)
    # Every pixel counts for the latents, and every latent for the pixels.
    for gradient in gradients:
        assert np.all(np.asarray(jnp.abs(gradient).max(axis=(0, 3))) > 0)


def test_wrong_shapes_are_refused():
    autoencoder = filled(build_autoencoder, DIGITS)
    with pytest.raises(ValueError, match=r"images of shape \(8, 8, 1\)"):
        autoencoder.encode(jnp.zeros((1, 9, 8, 1)))
    with pytest.raises(ValueError, match=r"latents of shape \(4, 4, 2\)"):
        autoencoder.decode(jnp.zeros((1, 8, 8, 2)))


def test_a_block_takes_an_embedding_exactly_if_built_for_one(getkey):
    def make(dim):
        return ResBlock(4, 4, dim, activation=jax.nn.silu, dropout=0.0, norm_groups=1, key=getkey())

    x = jnp.zeros((1, 2, 2, 4))
    assert make(None)(x).shape == x.shape
    for block, arguments in ((make(None), (x, jnp.zeros((1, 3)))), (make(3), (x,))):
        with pytest.raises(ValueError, match="exactly if"):
            block(*arguments)


def test_divergence_is_the_integral_that_it_stands_for():
    """KL(N(m, s²) ‖ N(0, 1)) by quadrature; without a variance, half the square."""
    means, deviations = np.array([0.0, 0.7, -1.2, 2.0]), np.array([1.0, 0.3, 1.7, 0.9])

    def integral(m: float, s: float) -> float:
        p, q = stats.norm(m, s), stats.norm()
        low, high = m - 12 * s, m + 12 * s
        return integrate.quad(lambda z: p.pdf(z) * (p.logpdf(z) - q.logpdf(z)), low, high)[0]

    expected = sum(map(integral, means, deviations))
    mean = jnp.asarray(means, jnp.float32).reshape(1, 2, 2, 1)
    log_variance = 2 * jnp.log(jnp.asarray(deviations, jnp.float32)).reshape(1, 2, 2, 1)
    found = LatentDistribution(mean, log_variance).divergence()
    np.testing.assert_allclose(found, [expected], rtol=1e-5)
    without = LatentDistribution(mean, None).divergence()
    np.testing.assert_allclose(without, [0.5 * np.sum(means**2)], rtol=1e-6)
    at_prior = LatentDistribution(jnp.zeros((3, 2, 2, 1)), jnp.zeros((3, 2, 2, 1)))
    np.testing.assert_array_equal(at_prior.divergence(), np.zeros(3))


def test_latents_are_drawn_from_their_distribution(getkey):
    mean, log_variance = jnp.full((1, 100, 100, 2), 0.4), jnp.full((1, 100, 100, 2), -2.0)
    drawn = np.asarray(LatentDistribution(mean, log_variance).sample(key=getkey())).ravel()
    assert stats.kstest(drawn, stats.norm(0.4, np.exp(-1.0)).cdf).pvalue > 1e-3
    certain = LatentDistribution(mean, None)
    np.testing.assert_array_equal(certain.sample(key=getkey()), mean)


@pytest.mark.parametrize("kind", ["simple", "vae"])
def test_the_autoencoders_loss_is_its_formula(kind, getkey):
    config = dataclasses.replace(DIGITS, encoder_type=kind)
    autoencoder = filled(build_autoencoder, config)
    x, key = jnp.asarray(digits().images[:5]), getkey()

    @jax.jit
    def run(x):
        latents = autoencoder.encode_distribution(x)
        drawn = latents.sample(key=Draws.of(key, 5).keys(NOISE))
        decoded = autoencoder.decode(drawn)
        return decoded, latents.divergence(), AutoencoderLoss(0.3)(autoencoder, x, key=key)

    decoded, divergence, found = run(x)
    errors = np.sum((np.asarray(x) - np.asarray(decoded)) ** 2, axis=(1, 2, 3))
    expected = np.mean((errors + 0.3 * np.asarray(divergence)) / 64)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


@eqx.filter_jit
def reconstruct(autoencoder, images):
    return autoencoder.decode(autoencoder.encode(images))


@pytest.mark.parametrize("kind", ["simple", "vae"])
def test_training_reduces_the_reconstruction_error(kind):
    fresh = filled(build_autoencoder, dataclasses.replace(DIGITS, encoder_type=kind))
    training = TrainingConfig(
        steps=150,
        warmup_steps=10,
        batch_size=64,
        learning_rate=1e-2,
        ema_decay=0.9,
        log_every=50,
    )
    trained = train_autoencoder(fresh, digits(), training, kl_weight=1e-3)
    images = digits().images[:500]
    before, after = (
        peak_signal_to_noise_ratio(np.asarray(reconstruct(a, jnp.asarray(images))), images)
        for a in map(eqx.nn.inference_mode, (fresh, trained))
    )
    # The mean image is what a network learns that ignores its latents.
    ignorant = peak_signal_to_noise_ratio(np.broadcast_to(images.mean(0), images.shape), images)
    assert after > before + 5, (before, after)
    assert after > ignorant + 5, (after, ignorant)


def test_constant_latents_have_no_scale():
    autoencoder = filled(build_autoencoder, DIGITS)
    dead = jax.tree.map(lambda a: jnp.zeros_like(a) if eqx.is_array(a) else a, autoencoder)
    with pytest.raises(ValueError, match="encodes nothing"):
        measure_scale_factor(dead, digits())
