"""Draws images as a user's program does, and writes them to a file: `python -m
tests.drawn_elsewhere OUT NAMES`.

It is started by test_elsewhere.py with another number of devices, or another level of optimisation.
"""

import sys

import jax
import jax.numpy as jnp
import numpy as np

from diffusion_eqx.exact import GaussianMixtureDenoiser
from diffusion_eqx.guidance import ClassifierFreeGuidance, Clipping
from diffusion_eqx.samplers import find_sampler, sample, sample_from, trajectory
from diffusion_eqx.schedules import DiscreteSchedule, cosine_betas

# Not a multiple of 2 or 8 devices.
COUNT = 11
SHAPE = (3, 2, 2)


def denoiser() -> GaussianMixtureDenoiser:
    means = np.random.default_rng(0).uniform(-0.6, 0.6, (3, *SHAPE))
    arrays = (jnp.asarray(a, jnp.float32) for a in ([0.5, 0.3, 0.2], means, [0.2, 0.3, 0.25]))
    return GaussianMixtureDenoiser(*arrays, DiscreteSchedule(cosine_betas(1000)))


def drawn(name: str) -> np.ndarray:
    sampler = find_sampler(name)
    steps = 200 if sampler.chooses_levels else 12
    return np.asarray(
        sample(
            denoiser(),
            sampler,
            SHAPE,
            count=COUNT,
            steps=steps,
            key=jax.random.key(3),
            cond=jnp.arange(COUNT, dtype=jnp.int32) % 3,
            guidance=(ClassifierFreeGuidance(2.0, interval=(0.1, 0.9)), Clipping()),
            first=5,
        )
    )


def other_drivers() -> dict[str, np.ndarray]:
    """The other ways of drawing, with one condition for all."""
    noise = jnp.asarray(np.random.default_rng(1).standard_normal((COUNT, *SHAPE)), jnp.float32)
    made, sampler = denoiser(), find_sampler("dpm++2m-sde")
    options = {"steps": 6, "key": jax.random.key(2), "cond": 1}
    scales = ClassifierFreeGuidance(jnp.linspace(1.0, 4.0, COUNT))
    return {
        "a scale for each": np.asarray(
            sample(made, sampler, SHAPE, count=COUNT, guidance=scales, **options)
        ),
        "sample_from": np.asarray(sample_from(made, sampler, noise, **options)),
        "trajectory": np.asarray(trajectory(made, sampler, SHAPE, count=COUNT, every=2, **options)),
    }


def main() -> None:
    path, *names = sys.argv[1:]
    images = {name: drawn(name) for name in names}
    np.savez(path, devices=len(jax.local_devices()), **images, **other_drivers())


if __name__ == "__main__":
    main()
