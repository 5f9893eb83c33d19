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


class Bare(dx.samplers.DDIMSampler):
    def step(self, denoise, state, t, s):
        return super().step(denoise, state, t, s).x


calls = {
    "a step that gives no state": lambda: model.sample(1, Bare(), steps=2, labels=1, key=key),
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
    "class of a sampler": lambda: model.sample(2, dx.samplers.DDIMSampler, key=key),
    "class of a guidance": lambda: model.sample(2, guidance=dx.guidance.Clipping, labels=1, key=key),
    "name of a sampler": lambda: dx.sample(denoiser, "ddim", (4, 4, 1), count=1, steps=2, key=key),
    "model for a denoiser": lambda: dx.sample(model, sampler, (4, 4, 1), count=1, steps=2, key=key),
    "name of a grid": lambda: dx.samplers.DDIMSampler(grid="karras"),
    "class of a grid": lambda: dx.samplers.DDIMSampler(grid=dx.samplers.KarrasGrid),
    "class of noise": lambda: dx.samplers.DDIMSampler(noise=dx.samplers.BrownianNoise),
    "name of a class": lambda: model.sample(2, labels="bag", key=key),
    "steps of diffusers": lambda: model.sample(2, labels=1, num_inference_steps=2, key=key),
    "scale of diffusers": lambda: model.sample(2, labels=1, guidance_scale=2.0, key=key),
    "misspelt": lambda: model.sample(2, labels=1, step=2, key=key),
    "check_schedule": lambda: dx.testing.check_schedule(dx.schedules.VPSchedule),
    "check_sampler": lambda: dx.testing.check_sampler(dx.samplers.DDIMSampler),
    "check_guidance": lambda: dx.testing.check_guidance(dx.guidance.Clipping),
    "check_grid": lambda: dx.testing.check_grid(dx.samplers.KarrasGrid, model.schedule),
    "check_parameterization": lambda: dx.testing.check_parameterization(
        dx.parameterizations.VPrediction, model.schedule
    ),
    "time for a timestep": lambda: model.q_sample(jnp.zeros((1, 4, 4, 1)), 0.5, key=key),
}
for name, call in calls.items():
    try:
        call()
        print(f"{name}: accepted")
    except (ValueError, TypeError) as error:
        text = str(error)
        print(f"{name}: {'long' if len(text) > 300 or chr(10) in text else 'refused'}: {text}")
"""


# What was meant, in the words of the answer.
MEANT = {
    "a step that gives no state": "Bare.step must return state.moved(x) or state.moved(x, memory)",
    "an old key": "the words of a key, as of jax.random.PRNGKey",
    "class of a sampler": "the class DDIMSampler itself, where an instance is wanted: DDIMSampler()",
    "class of a guidance": "the class Clipping itself, where an instance is wanted: Clipping()",
    "name of a sampler": "find_sampler(name); got 'ddim'",
    "model for a denoiser": "got a DDIMModel. Of a model that is model.denoiser",
    "name of a grid": "a grid such as KarrasGrid(); got 'karras'",
    "class of a grid": "an instance is wanted: KarrasGrid()",
    "class of noise": "an instance is wanted: BrownianNoise()",
    "name of a class": "labels are integers, the numbers of classes; got <U3",
    "steps of diffusers": "no option 'num_inference_steps' here; give steps=50",
    "scale of diffusers": "no option 'guidance_scale' here; give guidance=2.0",
    "misspelt": "no option 'step' here; the nearest is 'steps'",
    "check_schedule": "an instance is wanted: VPSchedule()",
    "check_sampler": "an instance is wanted: DDIMSampler()",
    "check_guidance": "an instance is wanted: Clipping()",
    "check_grid": "an instance is wanted: KarrasGrid()",
    "check_parameterization": "an instance is wanted: VPrediction()",
    "time for a timestep": "ask the schedule for its level, schedule.at(time)",
}


def test_wrong_values_are_refused_in_one_clear_line():
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], check=True, capture_output=True, text=True
    )
    lines = done.stdout.splitlines()
    assert len(lines) == 32, done.stdout
    for line in lines:
        assert ": refused: " in line, line
        name, _, text = line.partition(": refused: ")
        assert MEANT.get(name, "") in text, line
