"""Latents on disk: what was encoded, for exactly the autoencoder and the images that made it."""

import json
import logging

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion_eqx.config import TrainingConfig
from diffusion_eqx.data import ImageDataset
from diffusion_eqx.nn import AbstractAutoencoder, LatentDistribution
from diffusion_eqx.training import encode_dataset, encode_moments, train, train_latent
from tests.latent_models import small_latent_config, small_latent_model

RNG = np.random.default_rng(0)
DATA = ImageDataset(RNG.integers(0, 256, (50, 9, 6, 1), np.uint8), np.arange(50) % 4)
RUNS: list[int] = []


class Pooling(AbstractAutoencoder):
    """Halves of an image, times a weight; notes each run of the encoder."""

    weight: jax.Array
    variational: bool = eqx.field(static=True, default=True)
    image_shape: tuple[int, int, int] = (9, 6, 1)
    latent_shape: tuple[int, int, int] = (9, 3, 1)

    def encode_distribution(self, x):
        jax.debug.callback(lambda: RUNS.append(1))
        mean = self.weight * x[:, :, ::2]
        return LatentDistribution(mean, -mean if self.variational else None)

    def decode(self, z):
        return jnp.repeat(z, 2, axis=2)


def encoder(weight=2.0, **options) -> Pooling:
    return Pooling(jnp.asarray(weight), **options)


@pytest.fixture(autouse=True)
def runs():
    RUNS.clear()
    return RUNS


@pytest.mark.parametrize("variational", [True, False])
def test_moments_are_kept_and_mapped(variational, tmp_path, runs):
    autoencoder = encoder(variational=variational)
    plain = encode_moments(autoencoder, DATA, batch_size=20)
    expected = 2.0 * (DATA.images[:, :, ::2] / 127.5 - 1.0)
    np.testing.assert_allclose(plain.mean, expected, atol=1e-6)
    runs.clear()
    for again in (False, True):
        found = encode_moments(autoencoder, DATA, batch_size=20, cache=tmp_path)
        jax.effects_barrier()
        assert isinstance(found.mean, np.memmap)
        np.testing.assert_array_equal(found.mean, plain.mean)
        if variational:
            np.testing.assert_array_equal(found.log_variance, plain.log_variance)
            np.testing.assert_array_equal(found.log_variance, -plain.mean)
        else:
            assert found.log_variance is None
        # Three parts, each encoded once, and nothing the second time.
        assert len(runs) == 3, again
    assert [path.name[0] for path in tmp_path.iterdir()].count(".") == 0


def test_another_autoencoder_or_data_set_makes_new_ones(tmp_path):
    # Each changes one thing: a weight in its last bit, one pixel, the order, the type.
    pixel = DATA.images.copy()
    pixel[-1, -1, -2] ^= 1
    smallest = float(np.nextafter(np.float32(2.0), np.float32(3.0)))
    encode_moments(encoder(), DATA, cache=tmp_path)
    cases = (
        (encoder(smallest), DATA),
        (encoder(), ImageDataset(pixel)),
        (encoder(), ImageDataset(DATA.images[::-1])),
        (encoder(), ImageDataset(DATA.images / 127.5 - 1.0)),
        (encoder(variational=False), DATA),
    )
    for autoencoder, data in cases:
        found = encode_moments(autoencoder, data, cache=tmp_path)
        expected = encode_moments(autoencoder, data)
        np.testing.assert_array_equal(found.mean, expected.mean)
        assert (found.log_variance is None) == (expected.log_variance is None)
        assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("harm", ["flip", "cut", "lost", "record", "torn"])
def test_damaged_ones_are_found_and_made_anew(harm, tmp_path, caplog):
    good = np.array(encode_moments(encoder(), DATA, cache=tmp_path).mean)
    (place,) = tmp_path.iterdir()
    mean = place / "mean.npy"
    content = bytearray(mean.read_bytes())
    if harm == "flip":
        content[-5] ^= 16
        mean.write_bytes(content)
    elif harm == "cut":
        mean.write_bytes(content[:-100])
    elif harm == "lost":
        mean.unlink()
    elif harm == "record":
        (place / "moments.json").write_text("{")
    else:
        # Killed while it wrote: nothing is there under the final name.
        place.rename(place.with_name(f".{place.name}.partial"))
    with caplog.at_level(logging.WARNING):
        found = encode_moments(encoder(), DATA, cache=tmp_path)
    np.testing.assert_array_equal(found.mean, good)
    assert isinstance(found.mean, np.memmap)
    assert ("damaged, and are made anew" in caplog.text) == (harm != "torn")
    assert len(list(tmp_path.iterdir())) == 1


def test_without_room_they_stay_in_memory(tmp_path, caplog, monkeypatch):
    from types import SimpleNamespace

    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=100))
    found = encode_moments(encoder(), DATA, cache=tmp_path)
    np.testing.assert_array_equal(found.mean, encode_moments(encoder(), DATA).mean)
    assert not isinstance(found.mean, np.memmap)
    assert "stay in memory: 0 MB are free" in caplog.text
    assert list(tmp_path.iterdir()) == []


def test_the_latents_of_a_model_are_the_same_with_and_without(tmp_path):
    model = small_latent_model()
    kept = encode_dataset(model, DATA, cache=tmp_path)
    np.testing.assert_array_equal(kept.examples, encode_dataset(model, DATA).examples)
    np.testing.assert_array_equal(kept.labels, DATA.labels)
    direct = eqx.filter_jit(model.encode)(jnp.asarray(DATA.images[:5] / np.float32(127.5) - 1.0))
    np.testing.assert_allclose(kept.examples[:5], direct, atol=1e-5)


@pytest.mark.long
def test_a_run_keeps_its_latents_and_goes_on_from_them(tmp_path):
    config = small_latent_config(scale_factor=None)
    settings = TrainingConfig(steps=2, batch_size=10, warmup_steps=0)
    key = jax.random.key(0)
    model = train_latent(config, DATA, settings, out=tmp_path / "run", key=key)
    (place,) = (tmp_path / "run" / "latents").iterdir()
    files = json.loads((place / "moments.json").read_text())["files"]
    before = {name: (place / name).stat().st_mtime_ns for name in files}
    again = train_latent(config, DATA, settings, out=tmp_path / "run", key=key)
    assert eqx.tree_equal(model, again)
    assert before == {name: (place / name).stat().st_mtime_ns for name in files}
    # They are no part of the run: it is begun anew with them.
    train(model, DATA, settings, out=tmp_path / "run", overwrite=True)
    assert place.exists()
