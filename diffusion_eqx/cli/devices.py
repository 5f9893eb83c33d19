"""Which devices a command uses."""

import os

import jax


def use_all_cores(cpu_devices: int, batch_size: int) -> None:
    """Let jax see the CPU as several devices, so that batches are split over its cores.

    XLA runs one convolution on one core; split over as many devices as there are cores, training
    gets the rest of them too. `cpu_devices = 0` takes the largest number up to the cores that divides
    `batch_size`. Must be called before jax's first computation; accelerators are not affected.
    """
    if cpu_devices == 0:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        cpu_devices = next(n for n in range(cores or 1, 0, -1) if batch_size % n == 0)
    jax.config.update("jax_num_cpu_devices", cpu_devices)
