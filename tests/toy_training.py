"""A network, a loss and a data set that train in a moment."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from diffusion_eqx.config import DDIMConfig, NoiseScheduleConfig, TrainingConfig, UNetBackboneConfig
from diffusion_eqx.data import ArrayDataset
from diffusion_eqx.models import DDIMModel


class Net(eqx.Module):
    layers: list[eqx.nn.Linear]

    def __init__(self, *, key):
        keys = jax.random.split(key)
        self.layers = [eqx.nn.Linear(2, 8, key=keys[0]), eqx.nn.Linear(8, 2, key=keys[1])]

    def __call__(self, x):
        hidden, out = self.layers
        return jax.vmap(lambda row: out(jnp.tanh(hidden(row))))(x)


def net(seed: int = 0) -> Net:
    return Net(key=jax.random.key(seed))


def denoising(network, x0, cond=None, *, key):
    """Take noise off."""
    del cond
    return jnp.mean((network(x0 + 0.1 * jax.random.normal(key, x0.shape)) - x0) ** 2)


def toy_points() -> ArrayDataset:
    """Points of which single rows of a batch can be read."""
    return ArrayDataset(np.random.default_rng(0).normal(size=(50, 2)).astype(np.float32))


def toy_config(steps: int, log_every: int = 5) -> TrainingConfig:
    """A run that may be made longer."""
    return TrainingConfig(
        steps=steps,
        batch_size=16,
        log_every=log_every,
        checkpoint_every=0,
        learning_rate_schedule="constant",
        warmup_steps=3,
    )


class Points:
    """A data set of a user's own: points on a circle. Batches from number `bad` on hold a NaN."""

    shape = (2,)
    num_classes = None
    class_names = ()
    labels = None

    def __init__(self, bad: int | None = None, count: int = 100):
        angles = np.linspace(0.0, 2.0 * np.pi, count, dtype=np.float32)
        self.points = np.stack([np.cos(angles), np.sin(angles)], axis=-1)
        self.bad = bad

    def __len__(self):
        return len(self.points)

    def batches(self, batch_size, *, seed):
        return _Batches(self, batch_size, seed)


class _Batches:
    def __init__(self, data, batch_size, seed):
        self.data, self.batch_size, self.seed = data, batch_size, seed

    def __getitem__(self, number):
        rng = np.random.default_rng((self.seed, number))
        images = self.data.points[rng.integers(len(self.data), size=self.batch_size)]
        if self.data.bad is not None and number == self.data.bad:
            images[0] = np.nan
        return {"images": images}


class Sum(eqx.Module):
    """A backbone of images: their sum with a picture of each class, the last one meaning "no class"."""

    pictures: jax.Array

    def __call__(self, x, c_noise, cond=None, *, key=None):
        classes = len(self.pictures) - 1
        labels = jnp.full((len(x),), classes) if cond is None else jnp.asarray(cond)
        return 0.1 * x - jnp.take(self.pictures, labels, axis=0)


def digit_model() -> DDIMModel:
    """A model of 8x8 digits that compiles in a moment: it predicts v by `Sum`."""
    config = DDIMConfig(
        backbone=UNetBackboneConfig(
            hidden_dims=(4,), attention_resolutions=(), time_embedding_dim=4, num_classes=10
        ),
        noise_schedule=NoiseScheduleConfig(schedule_type="cosine"),
        input_shape=(8, 8, 1),
        prediction_type="v_prediction",
        num_inference_steps=4,
    )
    model = DDIMModel(config, key=jax.random.key(0))
    pictures = 0.01 * jax.random.normal(jax.random.key(1), (11, 8, 8, 1))
    return eqx.tree_at(lambda m: m.denoiser.backbone, model, Sum(pictures))
