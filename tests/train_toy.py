"""A run of a toy, slow enough to be killed in the middle; prints the digest of its last state.

python -m tests.train_toy FOLDER
"""

import sys
import time
import warnings

import equinox as eqx

from diffusion_eqx.config import TrainingConfig
from diffusion_eqx.training import Callback, Run, digest, fit, make_recipe
from tests.toy_training import Points, denoising, net

warnings.simplefilter("ignore")
config = TrainingConfig(
    steps=200,
    batch_size=16,
    log_every=3,
    checkpoint_every=2,
    precision="float16",
    loss_scale_growth=20,
    ema_lengths=(0.05, 0.1),
)


class Slowly(Callback):
    """Gives a killer time, and says that the training has begun."""

    def step(self, run):
        print("step", run.step, flush=True)
        time.sleep(0.01)


state, _ = fit(
    net(),
    Points(),
    make_recipe(config, denoising),
    config,
    run=Run(sys.argv[1]),
    callbacks=[Slowly()],
)
print("digest", digest(eqx.filter(state, eqx.is_array)))
