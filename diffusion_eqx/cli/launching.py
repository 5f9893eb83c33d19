"""How `diffusion-eqx train` becomes one of several processes."""

import dataclasses
from pathlib import Path
from typing import Annotated

import tyro


@dataclasses.dataclass(frozen=True, kw_only=True)
class Launch:
    """Which of several processes this is, and where it finds the others."""

    coordinator: Annotated[str | None, tyro.conf.arg(metavar="HOST:PORT|auto")] = None
    """Train as one of several processes, which are started by the same command: where all of them reach
    process 0. auto: SLURM or Open MPI tells."""
    processes: int | None = None
    """How many processes there are; with auto as the launcher tells."""
    process: int | None = None
    """Which one this is, from 0; with auto as the launcher tells."""
    rendezvous_timeout: int = 300
    """Seconds after which a process gives up to wait for the others, and names those that are missing."""


def join(launch: Launch, folder: Path) -> None:
    """Wait for the other processes, if there are to be any.

    **Raises:** `ValueError` if the options do not go together.
    """
    if launch.coordinator is None:
        if launch.processes is not None or launch.process is not None:
            raise ValueError("--processes and --process need --coordinator HOST:PORT, or auto")
        return
    from diffusion_eqx.training import join_processes

    coordinator = None if launch.coordinator == "auto" else launch.coordinator
    if coordinator is not None and ":" not in coordinator:
        raise ValueError(f"--coordinator must be HOST:PORT or auto; got {coordinator}")
    join_processes(
        folder,
        coordinator=coordinator,
        processes=launch.processes,
        process=launch.process,
        timeout=launch.rendezvous_timeout,
    )
