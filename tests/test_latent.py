"""Autoencoders, diffusion in their latent space, and the backbone for vectors."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pydantic
import pytest
import safetensors
import safetensors.numpy
from diffusion_eqx_export import export_sampler, read_artifact, verify
from scipy import integrate, stats

from diffusion_eqx.config import (
    AutoencoderConfig,
    DDIMConfig,
    DiffusionTrainingConfig,
    LDMConfig,
    NoiseScheduleConfig,
    from_json,
    to_json,
)
from diffusion_eqx.data import ArrayDataset, digits
from diffusion_eqx.denoiser import Denoiser
from diffusion_eqx.evaluation import peak_signal_to_noise_ratio
from diffusion_eqx.losses import DenoisingLoss
from diffusion_eqx.models import DDIMModel, LDMModel, SavedModel, load_model, save_model
from diffusion_eqx.models.array_file import named_arrays
from diffusion_eqx.models.build import build_autoencoder
from diffusion_eqx.nn import MLP, AbstractAutoencoder, LatentDistribution, ResBlock
from diffusion_eqx.parameterization import VPrediction
from diffusion_eqx.samplers import DDIMSampler, build_sampler, sample
from diffusion_eqx.schedules import DiscreteSchedule, cosine_betas
from diffusion_eqx.training import (
    AutoencoderLoss,
    Cadence,
    averaged,
    encode_dataset,
    fit,
    make_recipe,
    measure_scale_factor,
    train_autoencoder,
)
from tests.latent_models import filled, small_latent_config, small_latent_model

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
        decoded = autoencoder.decode(latents.sample(key=key))
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
    training = DiffusionTrainingConfig(
        steps=150, warmup_steps=10, batch_size=64, learning_rate=1e-2, ema_decay=0.9
    )
    cadence = Cadence(log_every=50)
    trained = train_autoencoder(fresh, digits(), training, kl_weight=1e-3, cadence=cadence)
    images = digits().images[:500]
    before, after = (
        peak_signal_to_noise_ratio(np.asarray(reconstruct(a, jnp.asarray(images))), images)
        for a in map(eqx.nn.inference_mode, (fresh, trained))
    )
    # The mean image is what a network learns that ignores its latents.
    ignorant = peak_signal_to_noise_ratio(np.broadcast_to(images.mean(0), images.shape), images)
    assert after > before + 5, (before, after)
    assert after > ignorant + 5, (after, ignorant)


def test_scaled_latents_have_unit_deviation():
    config = small_latent_config(input_shape=(8, 8, 1))
    autoencoder = filled(build_autoencoder, config.autoencoder)
    scale = measure_scale_factor(autoencoder, digits(), batch_size=700)
    parts = (autoencoder, jnp.asarray(scale, jnp.float32))
    model = eqx.tree_at(lambda m: (m.autoencoder, m.scale_factor), filled(LDMModel, config), parts)
    latents = encode_dataset(model, digits(), batch_size=700)
    assert abs(scale - 1.0) > 0.1
    assert latents.examples.std() == pytest.approx(1.0, abs=1e-4)
    np.testing.assert_array_equal(latents.labels, digits().labels)
    direct = eqx.filter_jit(model.encode)(jnp.asarray(digits().images[-3:]))
    np.testing.assert_allclose(latents.examples[-3:], direct, atol=1e-4)


def test_constant_latents_have_no_scale():
    autoencoder = filled(build_autoencoder, DIGITS)
    dead = jax.tree.map(lambda a: jnp.zeros_like(a) if eqx.is_array(a) else a, autoencoder)
    with pytest.raises(ValueError, match="encodes nothing"):
        measure_scale_factor(dead, digits())


def test_samples_are_the_decoded_samples_of_the_latents(getkey):
    model, key = small_latent_model(), getkey()
    found = model.sample((3, 9, 6, 1), "ddim", 5, key=key)
    latents = sample(
        build_sampler("ddim", model.guided(None)), (5, 3, 3), count=3, steps=5, key=key
    )
    assert latents.shape == (3, 5, 3, 3)
    assert float(jnp.abs(latents).max()) > 1.0
    np.testing.assert_allclose(found, eqx.filter_jit(model.decode)(latents), rtol=0, atol=1e-6)
    by_hand = eqx.filter_jit(eqx.nn.inference_mode(model.autoencoder).decode)(latents / 0.8)
    np.testing.assert_allclose(found, jnp.clip(by_hand, -1, 1), rtol=0, atol=1e-5)


def test_generation_and_snapshots_are_images(getkey):
    model, key = small_latent_model(), getkey()
    images = model.generate(2, key=key)
    np.testing.assert_array_equal(images, model.sample(2, "ddim", 50, key=key))
    path = model.progressive(2, "ddim", 50, every=25, key=key)
    assert path.shape == (3, 2, 9, 6, 1)
    np.testing.assert_allclose(path[-1], images, atol=1e-5)
    with pytest.raises(ValueError, match=r"\(9, 6, 1\)"):
        model.sample((2, 5, 3, 3), "ddim", 5, key=key)


def test_encode_and_decode_scale_the_autoencoders_latents(getkey):
    model = small_latent_model()
    x = jax.random.uniform(getkey(), (2, 9, 6, 1), minval=-1)
    quiet = eqx.nn.inference_mode(model.autoencoder)
    latents = eqx.filter_jit(model.encode)(x)
    np.testing.assert_allclose(latents, 0.8 * eqx.filter_jit(quiet.encode)(x), atol=1e-6)
    far = 1000 * latents
    assert float(jnp.abs(eqx.filter_jit(quiet.decode)(far / 0.8)).max()) > 1
    assert float(jnp.abs(eqx.filter_jit(model.decode)(far)).max()) <= 1


def test_the_loss_is_that_of_the_latents_and_trains_the_denoiser_alone(getkey):
    model, key = small_latent_model(), getkey()
    x, labels = jax.random.uniform(getkey(), (4, 9, 6, 1), minval=-1), jnp.arange(4)
    inner = model.training_loss(DiffusionTrainingConfig())
    expected = eqx.filter_jit(inner)(model.denoiser.backbone, model.encode(x), labels, key=key)
    loss, grads = eqx.filter_jit(eqx.filter_value_and_grad(lambda m: m.loss(x, labels, key=key)))(
        model
    )
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    assert all(float(jnp.abs(g).max()) == 0 for g in jax.tree.leaves(grads.autoencoder))
    assert sum(float(jnp.abs(g).max()) > 0 for g in jax.tree.leaves(grads.denoiser.backbone)) > 10


class Halving(AbstractAutoencoder):
    """Keeps every other pixel of every other row, halved."""

    image_shape: tuple[int, int, int] = eqx.field(static=True, default=(8, 6, 1))
    latent_shape: tuple[int, int, int] = eqx.field(static=True, default=(4, 3, 1))

    def encode_distribution(self, x):
        return LatentDistribution(0.5 * x[:, ::2, ::2], None)

    def decode(self, z):
        return 2.0 * jnp.repeat(jnp.repeat(z, 2, axis=1), 2, axis=2)


def test_an_autoencoder_can_be_plugged_in(getkey):
    backbone = dataclasses.replace(small_latent_config().backbone, in_channels=1, out_channels=1)
    config = small_latent_config(input_shape=(8, 6, 1), latent_dim=1, backbone=backbone)
    model = LDMModel(config, autoencoder=Halving(), scale_factor=4.0, key=getkey())
    x = jax.random.uniform(getkey(), (2, 8, 6, 1), minval=-1)
    np.testing.assert_allclose(model.encode(x), 2.0 * x[:, ::2, ::2], atol=1e-6)
    np.testing.assert_allclose(
        model.decode(model.encode(x))[:, ::2, ::2], x[:, ::2, ::2], atol=1e-6
    )
    drawn = np.asarray(model.sample(2, "ddim", 3, key=getkey()))
    np.testing.assert_array_equal(drawn, drawn[:, ::2, ::2].repeat(2, 1).repeat(2, 2))
    with pytest.raises(ValueError, match=r"\(8, 6, 1\) into latents of shape \(4, 3, 1\)"):
        LDMModel(small_latent_config(), autoencoder=Halving(), key=getkey())


def test_there_is_one_scale_factor(getkey):
    fixed = small_latent_config(scale_factor=0.18215)
    assert float(LDMModel(fixed, key=getkey()).scale_factor) == pytest.approx(0.18215)
    assert float(LDMModel(small_latent_config(), key=getkey()).scale_factor) == 1.0
    with pytest.raises(ValueError, match=r"scale_factor=0\.18215"):
        LDMModel(fixed, scale_factor=2.0, key=getkey())


def test_a_saved_model_is_the_same_model(tmp_path):
    path = tmp_path / "m.safetensors"
    save_model(path, small_latent_model(), ema=True, training={"steps": 3})
    saved = load_model(path)
    assert eqx.tree_equal(saved.model, small_latent_model())
    assert (saved.ema, saved.training) == (True, {"steps": 3})


def test_files_name_the_denoisers_arrays_as_before(small_config, tmp_path):
    """A file of the first release holds the arrays of `model.denoiser`, named from there, and is read."""
    model, path = filled(DDIMModel, small_config), tmp_path / "m.safetensors"
    arrays = {name: np.asarray(a) for name, a in named_arrays(model.denoiser).items()}
    metadata = {
        "format": "diffusion_eqx.model",
        "format_version": "1",
        "config": to_json(small_config),
        "ema": "false",
        "training": "{}",
    }
    safetensors.numpy.save_file(arrays, path, metadata)
    assert eqx.tree_equal(load_model(path).model, model)
    save_model(path, small_latent_model())
    with safetensors.safe_open(path, "numpy") as file:
        names = set(file.keys())
    assert named_arrays(small_latent_model().denoiser).keys() < names
    assert {"scale_factor", "autoencoder.decoder.head.conv.weight"} < names


@pytest.mark.parametrize("config", [DIGITS, small_latent_config(noise_steps=300, beta_end=0.01)])
def test_configurations_round_trip(config):
    assert from_json(type(config), to_json(config)) == config
    assert hash(config) == hash(dataclasses.replace(config))


def test_the_guides_numbers_make_the_noise_schedule():
    config = small_latent_config(
        noise_schedule=NoiseScheduleConfig(), noise_steps=300, beta_start=0.001, beta_end=0.01
    )
    expected = NoiseScheduleConfig(num_timesteps=300, beta_start=0.001, beta_end=0.01)
    assert config.noise_schedule == expected
    assert LDMConfig().noise_schedule == NoiseScheduleConfig()


@pytest.mark.parametrize(
    ("kind", "wrong", "names"),
    [
        (AutoencoderConfig, {"encoder_type": "gan"}, ["encoder_type", "gan", "vae"]),
        (AutoencoderConfig, {"latent_channels": 0}, ["latent_channels", "greater"]),
        (AutoencoderConfig, {"encoder_hidden_dims": (8,)}, ["(8,)", "(64, 32)", "as many"]),
        (LDMConfig, {"latent_dim": 3}, ["in_channels is 4", "(14, 14, 3)", "3 channels"]),
        (LDMConfig, {"decoder_hidden_dims": ()}, ["decoder_hidden_dims", "at least 1"]),
        (LDMConfig, {"scale_factor": 0.0}, ["scale_factor", "greater than 0"]),
        (LDMConfig, {"beta_start": 0.5}, ["beta_start=0.5", "beta_end=0.02"]),
        (LDMConfig, {"clip_denoised": True}, ["clip_denoised", "False"]),
        (LDMConfig, {"kl_weight": -1.0}, ["kl_weight", "-1"]),
        (DDIMConfig, {"latent_dim": 3}, ["latent_dim", "nexpected"]),
    ],
)
def test_wrong_values_say_field_value_and_remedy(kind, wrong, names):
    with pytest.raises(pydantic.ValidationError) as error:
        kind(**wrong)
    for name in names:
        assert name in str(error.value)


@pytest.mark.parametrize(
    ("examples", "labels", "message"),
    [
        (np.zeros((0, 2)), None, "non-empty"),
        (np.zeros((3, 2), np.int32), None, "floating-point"),
        (np.array([[0.0, np.nan]]), None, "not finite"),
        (np.zeros((3, 2)), np.zeros(2, np.int32), "labels must be 3"),
    ],
)
def test_wrong_examples_are_refused(examples, labels, message):
    with pytest.raises(ValueError, match=message):
        ArrayDataset(examples, labels)


def test_peak_signal_to_noise_ratio_is_its_definition():
    """An error of a tenth of the range is 20 dB."""
    images = np.linspace(-0.8, 0.8, 60).reshape(1, 10, 6, 1)
    assert peak_signal_to_noise_ratio(images + 0.2, images) == pytest.approx(20.0)
    assert peak_signal_to_noise_ratio(images, images) == np.inf
    with pytest.raises(ValueError, match="shapes"):
        peak_signal_to_noise_ratio(images, images[:, :5])


# The backbone for vectors.

MEANS = np.array([[0.8, 0.5], [-0.7, 0.4], [0.1, -0.8]])
STD = 0.15


def mixture(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Points of three Gaussians in turn, and which."""
    rng = np.random.default_rng(seed)
    component = np.arange(count) % 3
    points = MEANS[component] + STD * rng.standard_normal((count, 2))
    return points.astype(np.float32), component.astype(np.int32)


def energy_distance(x: np.ndarray, y: np.ndarray) -> float:
    """Mean energy distance (Székely & Rizzo 2013) of the projections on eight directions."""
    angles = np.pi * np.arange(8) / 8
    directions = np.stack([np.cos(angles), np.sin(angles)])
    pairs = zip((x @ directions).T, (y @ directions).T, strict=True)
    return float(np.mean([stats.energy_distance(a, b) for a, b in pairs]))


@pytest.fixture(scope="module")
def point_denoiser():
    schedule = DiscreteSchedule(cosine_betas(1000))
    training = DiffusionTrainingConfig(
        steps=800, batch_size=256, learning_rate=5e-3, ema_decay=0.99
    )
    loss = DenoisingLoss(schedule, VPrediction(), label_dropout=0.1, null_cond=3)
    network = MLP(2, width=64, depth=2, embedding_dim=32, num_classes=3, key=jax.random.key(0))
    dataset = ArrayDataset(*mixture(30_000, 0))
    cadence = Cadence(log_every=200)
    state, _ = fit(network, dataset, make_recipe(training, loss), training, cadence=cadence)
    return Denoiser(averaged(state), schedule, VPrediction())


def test_points_drawn_with_an_mlp_are_of_the_mixture(point_denoiser):
    """And of the component asked for; a wrong mixture of the same size would be noticed."""
    labels = jnp.arange(6000) % 3
    drawn = np.asarray(
        sample(
            DDIMSampler(point_denoiser),
            (2,),
            count=6000,
            steps=50,
            key=jax.random.key(1),
            cond=labels,
        )
    )
    real, other = mixture(6000, 1)[0], mixture(6000, 2)[0]
    limit = 0.07
    assert energy_distance(drawn, real) < limit
    assert energy_distance(0.9 * real, other) > limit
    assert energy_distance(real[real[:, 0] > -0.5], other) > limit
    for component in range(3):
        points = drawn[np.asarray(labels) == component]
        np.testing.assert_allclose(points.mean(0), MEANS[component], atol=0.05)
        np.testing.assert_allclose(points.std(0), STD, atol=0.04)


def test_mlp_depends_on_all_its_inputs(getkey):
    network = filled(MLP, 5, width=16, depth=2, num_classes=3)
    x, t, label = jax.random.normal(getkey(), (2, 5)), jnp.array([3.0, 3.0]), jnp.array([1, 1])
    base = network(x, t, label)
    for other in (network(x + 0.1, t, label), network(x, t + 100, label), network(x, t, label + 1)):
        assert float(jnp.abs(other - base).min()) > 1e-5
    np.testing.assert_allclose(network(x, t, None), network(x, t, jnp.array([3, 3])), atol=1e-6)
    with pytest.raises(ValueError, match="no class embedding"):
        filled(MLP, 5)(x, t, label)


# Export.


@pytest.fixture(scope="module")
def artifact(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("latent") / "sampler.safetensors"
    saved = SavedModel(small_latent_model(), True, {})
    export_sampler(saved, path, batch_sizes=(1, 4), steps=10, platforms=("cpu",))
    return path


def test_a_latent_sampler_exports(artifact):
    stored = read_artifact(artifact)
    verdict = verify(stored)
    assert verdict.passed, verdict
    assert verdict.noise == 0.0
    manifest = stored.manifest
    assert manifest["sample"]["shape"] == [9, 6, 1]
    assert manifest["state"][0] == {"name": "x", "dtype": "F32", "shape": [-1, 5, 3, 3]}
    weights = {
        name.removeprefix("weights/") for name in stored.tensors if name.startswith("weights/")
    }
    assert {"scale_factor", "autoencoder.decoder.head.conv.weight"} <= weights
    assert not any(name.startswith("autoencoder.encoder.") for name in weights)


@pytest.mark.native
def test_the_native_program_decodes(artifact, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    program, out = Path(sys.executable).parent / "diffusion-sampler", tmp_path / "x.npy"
    line = [
        "sample",
        artifact,
        "-o",
        out,
        "-n",
        6,
        "--seed",
        9,
        "--steps",
        7,
        "--guidance-scale",
        3,
    ]
    subprocess.run([str(program), *map(str, line)], check=True, timeout=300)
    expected = small_latent_model().sample(
        6, "ddim", 7, key=jax.random.key(9), labels=jnp.arange(6) % 4, guidance_scale=3.0
    )
    assert float(jnp.std(expected)) > 0.02
    np.testing.assert_allclose(np.load(out), expected, rtol=0, atol=5e-5)
    report = subprocess.run(
        [str(program), "verify", str(artifact), "--json"], check=True, capture_output=True
    )
    assert json.loads(report.stdout)["noise"]["difference"] == 0.0
