"""What is refused without the help of type checks, which users do not have: one clear line each."""

import subprocess
import sys

SCRIPT = r"""
import jax, jax.numpy as jnp, numpy as np
import diffusion_eqx as dx

config = dx.config.DDIMConfig(
    backbone=dx.config.UNetBackboneConfig(hidden_dims=(8,), time_embedding_dim=8, num_classes=3),
    input_shape=(4, 4, 1),
)
key = jax.random.key(0)
model = dx.models.DDIMModel(config, key=key)
denoiser, sampler = model.denoiser, dx.samplers.DDIMSampler()
calls = {
    "a seed for a key": lambda: model.sample(1, key=0),
    "an old key": lambda: model.sample(1, key=jnp.zeros(2, jnp.uint32)),
    "a count of 1.5": lambda: model.sample(1.5, key=key),
    "steps of 2.5": lambda: model.sample(1, steps=2.5, key=key),
    "an integer for a level": lambda: denoiser(jnp.zeros((1, 4, 4, 1)), 3),
    "a time above 1": lambda: denoiser(jnp.zeros((1, 4, 4, 1)), 1.5),
    "no steps": lambda: dx.sample(denoiser, sampler, (4, 4, 1), count=1, steps=0, key=key),
    "steps below none": lambda: dx.sample(denoiser, sampler, (4, 4, 1), count=1, steps=-3, key=key),
    "too many steps": lambda: dx.sample(denoiser, sampler, (4, 4, 1), count=1, steps=1001, key=key),
    "conditions of another number": lambda: dx.sample(
        denoiser, sampler, (4, 4, 1), count=4, steps=2, key=key, cond=np.zeros(3, np.int32)
    ),
    "an unknown error": lambda: dx.losses.DenoisingLoss(denoiser, error="rmse"),
    "dropped labels without null": lambda: dx.losses.DenoisingLoss(
        dx.Denoiser(denoiser.backbone, model.schedule, denoiser.parameterization), label_dropout=0.5
    )(denoiser.backbone, jnp.zeros((2, 4, 4, 1)), jnp.zeros(2, jnp.int32), key=key),
    "eta of 2": lambda: dx.samplers.DDIMSampler(eta=2.0),
    "noise for a sampler without": lambda: dx.samplers.UniPCSampler(noise=dx.samplers.BrownianNoise()),
}
for name, call in calls.items():
    try:
        call()
        print(f"{name}: accepted")
    except ValueError as error:
        text = str(error)
        print(f"{name}: {'long' if len(text) > 300 or chr(10) in text else 'refused'}: {text}")
"""


def test_wrong_values_are_refused_in_one_clear_line():
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], check=True, capture_output=True, text=True
    )
    lines = done.stdout.splitlines()
    assert len(lines) == 14, done.stdout
    for line in lines:
        assert ": refused: " in line, line
