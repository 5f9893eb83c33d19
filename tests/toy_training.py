"""A network, a loss and a data set that train in a moment."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np


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
