"""A run on several simulated devices, or as one of several processes; prints what a test compares.

python -m tests.train_on_devices DEVICES SHARDED FOLDER STEPS [PROCESS PROCESSES PORT]
"""

import json
import sys

import jax

devices, sharded, folder, steps = (
    int(sys.argv[1]),
    sys.argv[2] == "sharded",
    sys.argv[3],
    int(sys.argv[4]),
)
jax.config.update("jax_num_cpu_devices", devices)
if len(sys.argv) > 5:
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(
        f"localhost:{sys.argv[7]}", int(sys.argv[6]), int(sys.argv[5]), initialization_timeout=120
    )

import equinox as eqx
import numpy as np

from diffusion_eqx.config import DiTBackboneConfig, TrainingConfig
from diffusion_eqx.data import ArrayDataset
from diffusion_eqx.denoiser import Denoiser
from diffusion_eqx.losses import DenoisingLoss, MinSNR
from diffusion_eqx.models import build_backbone
from diffusion_eqx.parameterizations import VPrediction
from diffusion_eqx.schedules import VPSchedule
from diffusion_eqx.training import Callback, Run, digest, fit, make_recipe

config = TrainingConfig(
    steps=8,
    batch_size=16,
    accumulation=2,
    learning_rate=1e-3,
    log_every=1,
    checkpoint_every=2,
    sharded=sharded,
    ema_lengths=(0.1,),
)
backbone = DiTBackboneConfig(
    hidden_size=64, depth=2, num_heads=2, patch_size=2, num_classes=3, in_channels=1
)
network = build_backbone(backbone, (8, 8), key=jax.random.key(0))
rng = np.random.default_rng(0)
data = ArrayDataset(rng.normal(size=(64, 8, 8, 1)).astype(np.float32), np.arange(64) % 3)
denoiser = Denoiser(network, VPSchedule(), VPrediction(), null=3)
recipe = make_recipe(config, DenoisingLoss(denoiser, weight=MinSNR(5.0), label_dropout=0.1))


class Watch(Callback):
    """Stops after some steps, and counts the bytes of the state on one device."""

    bytes_here = bytes_whole = 0

    def step(self, run):
        run.stopping = run.step == steps
        arrays = jax.tree.leaves(eqx.filter(run._state, eqx.is_inexact_array))
        Watch.bytes_whole = sum(array.nbytes for array in arrays)
        Watch.bytes_here = sum(array.addressable_shards[0].data.nbytes for array in arrays)


state, rows = fit(network, data, recipe, config, run=Run(folder), callbacks=[Watch()])
print(
    json.dumps(
        {
            "losses": [row["loss"] for row in rows],
            "share": Watch.bytes_here / max(Watch.bytes_whole, 1),
            "digest": digest(eqx.filter(state, eqx.is_array)),
            "step": int(state.step),
        }
    )
)
