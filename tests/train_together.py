"""A toy run as one of several processes, slow enough to be stopped in the middle.

python -m tests.train_together FOLDER PORT PROCESSES PROCESS TIMEOUT STEPS
"""

import sys
import time
import warnings

import jax

from diffusion_eqx.training import Callback, Run, fit, join_processes, make_recipe
from tests.toy_training import Points, denoising, net, toy_config

folder, port, processes, process, timeout, steps = sys.argv[1], *map(int, sys.argv[2:])
jax.config.update("jax_num_cpu_devices", 1)
join_processes(
    folder,
    coordinator=f"localhost:{port}",
    processes=processes,
    process=process,
    timeout=timeout,
)

warnings.simplefilter("ignore")
config = toy_config(steps)


class Slowly(Callback):
    """Gives others time, and says that the training goes on."""

    def step(self, run):
        print("step", run.step, flush=True)
        time.sleep(0.05)


state, rows = fit(
    net(),
    Points(),
    make_recipe(config, denoising),
    config,
    run=Run(folder),
    callbacks=[Slowly()],
)
print("done", int(state.step), rows[-1]["loss"])
