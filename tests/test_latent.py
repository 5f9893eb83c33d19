"""Diffusion in the latent space of an autoencoder."""

import dataclasses
import json
import subprocess
import sys
import warnings
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

from diffusion_eqx.config import (
    AutoencoderConfig,
    DDIMConfig,
    LDMConfig,
    NoiseScheduleConfig,
    TrainingConfig,
    from_json,
    to_json,
)
from diffusion_eqx.data import ImageDataset, digits
from diffusion_eqx.losses import training_loss
from diffusion_eqx.models import (
    DDIMModel,
    LDMModel,
    build_autoencoder,
    load_model,
    model_arrays,
    read_record,
    save_model,
)
from diffusion_eqx.nn import AbstractAutoencoder, LatentDistribution
from diffusion_eqx.samplers import sample
from diffusion_eqx.training import (
    dry_run_latent,
    encode_dataset,
    measure_scale_factor,
    train_latent,
)
from tests.filled import filled
from tests.latent_models import small_latent_config, small_latent_model


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


def test_samples_are_the_decoded_samples_of_the_latents(getkey):
    model, key = small_latent_model(), getkey()
    found = model.sample((3, 9, 6, 1), "ddim", steps=5, key=key)
    plan = model.plan("ddim", steps=5)
    latents = sample(plan.denoiser, plan.sampler, (5, 3, 3), count=3, steps=5, key=key)
    assert latents.shape == (3, 5, 3, 3)
    assert float(jnp.abs(latents).max()) > 1.0
    np.testing.assert_allclose(found, model.decode(latents), rtol=0, atol=1e-6)
    by_hand = eqx.filter_jit(eqx.nn.inference_mode(model.autoencoder).decode)(latents / 0.8)
    np.testing.assert_allclose(found, jnp.clip(by_hand, -1, 1), rtol=0, atol=1e-5)


def test_generation_and_snapshots_are_images(getkey):
    model, key = small_latent_model(), getkey()
    images = model.generate(2, key=key)
    np.testing.assert_array_equal(images, model.sample(2, "ddim", steps=50, key=key))
    path = model.trajectory(2, "ddim", steps=50, every=25, key=key)
    assert path.shape == (3, 2, 9, 6, 1)
    np.testing.assert_allclose(path[-1], images, atol=1e-5)
    with pytest.raises(ValueError, match=r"\(9, 6, 1\)"):
        model.sample((2, 5, 3, 3), "ddim", steps=5, key=key)


def test_encode_and_decode_scale_the_autoencoders_latents(getkey):
    model = small_latent_model()
    x = jax.random.uniform(getkey(), (2, 9, 6, 1), minval=-1)
    quiet = eqx.nn.inference_mode(model.autoencoder)
    latents = eqx.filter_jit(model.encode)(x)
    np.testing.assert_allclose(latents, 0.8 * eqx.filter_jit(quiet.encode)(x), atol=1e-6)
    far = 1000 * latents
    assert float(jnp.abs(eqx.filter_jit(quiet.decode)(far / 0.8)).max()) > 1
    assert float(jnp.abs(model.decode(far)).max()) <= 1


def test_the_loss_is_that_of_the_latents_and_trains_the_denoiser_alone(getkey):
    model, key = small_latent_model(), getkey()
    x, labels = jax.random.uniform(getkey(), (4, 9, 6, 1), minval=-1), jnp.arange(4)
    inner = training_loss(model.denoiser, model.config, TrainingConfig())
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
    drawn = np.asarray(model.sample(2, "ddim", steps=3, key=getkey()))
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
    save_model(path, small_latent_model(), record={"ema": True, "training": {"steps": 3}})
    assert bool(eqx.tree_equal(load_model(path), small_latent_model()))
    record = read_record(path)
    assert (record.ema, record.training) == (True, {"steps": 3})


def test_an_autoencoder_of_ones_own_comes_back(tmp_path, getkey):
    backbone = dataclasses.replace(small_latent_config().backbone, in_channels=1, out_channels=1)
    config = small_latent_config(input_shape=(8, 6, 1), latent_dim=1, backbone=backbone)
    model = LDMModel(config, autoencoder=Halving(), scale_factor=4.0, key=getkey())
    path = tmp_path / "m.safetensors"
    save_model(path, model)
    assert bool(eqx.tree_equal(load_model(path, parts=[Halving()]), model))
    with pytest.raises(ValueError, match="holds a Halving of your own as autoencoder"):
        load_model(path)


def test_files_name_the_denoisers_arrays_as_before(small_config, tmp_path):
    """A file of the first release holds the arrays of `model.denoiser`, named from there, and is read."""
    model, path = filled(DDIMModel, small_config), tmp_path / "m.safetensors"
    arrays = {name: np.asarray(a) for name, a in model_arrays(model).items()}
    metadata = {
        "format": "diffusion_eqx.model",
        "format_version": "1",
        "config": to_json(small_config),
        "ema": "false",
        "training": "{}",
    }
    safetensors.numpy.save_file(arrays, path, metadata)
    assert bool(eqx.tree_equal(load_model(path), model))
    save_model(path, small_latent_model())
    with safetensors.safe_open(path, "numpy") as file:
        names = set(file.keys())
    assert {"backbone.conv_in.weight", "schedule.log_alpha_bar"} < names
    assert "scale_factor" in names
    assert any(name.startswith("autoencoder.decoder.head.") for name in names)


@pytest.mark.parametrize(
    "config", [AutoencoderConfig(), small_latent_config(noise_steps=300, beta_end=0.01)]
)
def test_configurations_round_trip(config):
    assert from_json(type(config), to_json(config)) == config
    assert hash(config) == hash(dataclasses.replace(config))


def test_numbers_of_ones_own_make_the_noise_schedule():
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


@pytest.fixture(scope="module")
def artifact(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("latent") / "sampler.safetensors"
    export_sampler(
        small_latent_model(), path, guidance=2.0, batch_sizes=(1, 4), steps=10, platforms=("cpu",)
    )
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
    assert "scale_factor" in weights
    assert any(name.startswith("autoencoder.decoder.head.") for name in weights)
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
        6, "ddim", steps=7, key=jax.random.key(9), labels=jnp.arange(6) % 4, guidance=3.0
    )
    assert float(jnp.std(expected)) > 0.02
    np.testing.assert_allclose(np.load(out), expected, rtol=0, atol=5e-5)
    report = subprocess.run(
        [str(program), "verify", str(artifact), "--json"], check=True, capture_output=True
    )
    assert json.loads(report.stdout)["noise"]["difference"] == 0.0


@pytest.mark.long
def test_a_latent_model_begins_with_another_one_and_its_autoencoder_stays(tmp_path):
    source = small_latent_model()
    save_model(tmp_path / "source.safetensors", source)
    rng = np.random.default_rng(0)
    images = rng.integers(0, 255, (16, *source.config.input_shape), np.uint8)
    data = ImageDataset(images, np.arange(16) % 4)
    training = TrainingConfig(steps=2, batch_size=8, warmup_steps=0)
    out = tmp_path / "run"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Its latents are not of unit size.
        trained = train_latent(
            small_latent_config(),
            data,
            training,
            init_from=tmp_path / "source.safetensors",
            out=out,
            key=jax.random.key(9),
        )
    assert not (out / "autoencoder").exists()
    assert eqx.tree_equal(trained.autoencoder, source.autoencoder)
    assert trained.scale_factor == source.scale_factor
    # After two steps the average is near where it began, and far from other random weights.
    now, before = (np.asarray(m.denoiser.backbone.conv_in.weight) for m in (trained, source))
    assert 0.0 < np.abs(now - before).max() < 0.02 < np.abs(before).max()


def test_a_latent_training_is_refused_before_its_autoencoder_is_trained(small_config, tmp_path):
    config, key = small_latent_config(scale_factor=0.5), jax.random.key(0)
    data = ImageDataset(np.zeros((16, *config.input_shape), np.uint8), np.arange(16) % 4)
    training = TrainingConfig(steps=1, batch_size=8, warmup_steps=0)
    with pytest.raises(ValueError, match="flip, shift and jitter"):
        train_latent(
            config, data, dataclasses.replace(training, flip=True), out=tmp_path / "run", key=key
        )
    assert not (tmp_path / "run").exists()
    save_model(tmp_path / "pixels.safetensors", DDIMModel(small_config, key=key))
    with pytest.raises(ValueError, match="holds a DDIMModel"):
        train_latent(config, data, training, init_from=tmp_path / "pixels.safetensors", key=key)


@pytest.mark.long
def test_a_dry_run_tells_of_both_stages_and_a_given_scale_is_kept():
    config, key = small_latent_config(scale_factor=0.5), jax.random.key(0)
    images = np.random.default_rng(0).integers(0, 255, (16, *config.input_shape), np.uint8)
    data = ImageDataset(images, np.arange(16) % 4)
    training = TrainingConfig(steps=1, batch_size=8, warmup_steps=0)
    first, second = dry_run_latent(config, data, training, key=key)
    assert first.batch_shape == (8, *config.input_shape)
    assert second.batch_shape == (8, *config.sample_shape)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Its latents are not of unit size.
        trained = train_latent(config, data, training, key=key)
    assert trained.scale_factor == 0.5
    assert second.parameters == sum(
        leaf.size for leaf in jax.tree.leaves(eqx.filter(trained.denoiser.backbone, eqx.is_array))
    )
