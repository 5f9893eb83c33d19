"""A toy run as one of several processes, stopped after a step; prints its losses, and the rows it read.

python -m tests.train_onward FOLDER STOP PROCESSES PROCESS PORT
"""

import json
import sys

import jax

from diffusion_eqx.training import Callback, Run, Stop, fit, join_processes, make_recipe
from tests.toy_training import denoising, net, toy_config, toy_points

STEPS = 6


class Watched:
    """The data set, and what was read of it: the number of each batch and its rows."""

    def __init__(self, data):
        self.data, self.read, self.whole = data, {}, 0
        self.shape, self.num_classes = data.shape, data.num_classes
        self.class_names, self.labels = data.class_names, data.labels

    def __len__(self):
        return len(self.data)

    def batches(self, batch_size, *, seed):
        self.stream = self.data.batches(batch_size, seed=seed)
        return self

    def __getitem__(self, number):
        self.whole += 1
        return self.stream[number]

    def part(self, number, rows):
        found = self.stream.part(number, rows)
        self.read[number] = found["images"].tolist()
        return found


class StopAt(Callback):
    """Ends the run."""

    def step(self, run):
        return Stop("enough") if run.step == int(sys.argv[2]) else None


if __name__ == "__main__":
    folder, _, processes, process, port = sys.argv[1:]
    jax.config.update("jax_num_cpu_devices", 1)
    if int(processes) > 1:
        join_processes(
            folder,
            coordinator=f"localhost:{port}",
            processes=int(processes),
            process=int(process),
            timeout=120,
        )
    config = toy_config(STEPS, log_every=1)
    data = Watched(toy_points())
    _, rows = fit(
        net(),
        data,
        make_recipe(config, denoising),
        config,
        run=Run(folder),
        callbacks=[StopAt()],
    )
    losses = [row["loss"] for row in rows]
    print(json.dumps({"losses": losses, "read": data.read, "whole": data.whole}))
