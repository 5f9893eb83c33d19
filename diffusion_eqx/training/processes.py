"""How several processes find each other, and who is missing if they do not."""

import dataclasses
import ipaddress
import json
import os
import socket
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path

import jax

from diffusion_eqx.training.folder import PROCESSES, write_whole

# The number of a process and of all of them, where a launcher tells.
_TOLD = (
    ("SLURM_PROCID", "SLURM_NTASKS"),
    ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"),
)
# Seconds after which is said who is waited for, and between two such lines.
_FIRST_LINE, _LINES = 10.0, 30.0
_LOOK_EVERY = 0.5
# jax gives up so many seconds later than we do: it ends the process by an abort that names nobody.
_LATER = 60


@dataclasses.dataclass(frozen=True)
class Member:
    """What a process writes of itself before it waits for the others.

    - `host`, `address`: the machine's name and its address as it knows it; `pid`: on that machine.
    - `time`: when it started, in seconds since 1970.
    - `joined`: whether all have found each other.
    """

    host: str
    address: str
    pid: int
    time: float
    joined: bool = False


def join_processes(
    folder: str | Path,
    *,
    coordinator: str | None = None,
    processes: int | None = None,
    process: int | None = None,
    timeout: float = 300.0,
) -> None:
    """Wait until all processes of a run have found each other; to be called before anything is computed.

    Each one first writes `processes/i` into the folder of the run, where the others look for it. Whoever
    waits says on stderr who is missing. If the time is up, the process says so once more and exits with
    status 1: what jax does itself then is an abort, which cannot be caught and names nobody.

    - `folder`: of the run, which all processes see.
    - `coordinator`: HOST:PORT at which all reach process 0; None: jax asks SLURM or Open MPI.
    - `processes`, `process`: how many there are, and which this one is, from 0; None: the launcher tells.
    - `timeout`: seconds.

    **Raises:** `ValueError` if the numbers are not given and no launcher tells them, or if there is no such
    process.
    """
    processes, process = _numbers(os.environ, processes, process)
    place = Path(folder) / PROCESSES
    own = Member(socket.gethostname(), _address(), os.getpid(), time.time())
    _write(place, process, own)
    done = threading.Event()
    watchdog = threading.Thread(
        target=_watch, args=(place, process, processes, coordinator, timeout, done), daemon=True
    )
    watchdog.start()
    try:
        jax.distributed.initialize(
            coordinator, processes, process, initialization_timeout=int(timeout) + _LATER
        )
    finally:
        done.set()
        watchdog.join()
    _write(place, process, dataclasses.replace(own, joined=True))


def _numbers(
    told: Mapping[str, str], processes: int | None, process: int | None
) -> tuple[int, int]:
    for number, count in _TOLD:
        if number in told and count in told:
            processes = int(told[count]) if processes is None else processes
            process = int(told[number]) if process is None else process
            break
    if processes is None or process is None:
        names = ", ".join(f"{number} and {count}" for number, count in _TOLD)
        raise ValueError(
            "how many processes are there, and which one is this? No launcher tells it (looked for "
            f"{names}); give processes and process"
        )
    if not 0 <= process < processes:
        raise ValueError(f"process must be in 0 … {processes - 1}; got {process}")
    return processes, process


def _watch(
    place: Path,
    process: int,
    processes: int,
    coordinator: str | None,
    timeout: float,
    done: threading.Event,
) -> None:
    """Say who is missing while `done` is not set, and end the process when the time is up."""
    began, said = time.monotonic(), _FIRST_LINE
    while not done.wait(_LOOK_EVERY):
        waited = time.monotonic() - began
        found = _waiting(place, timeout)
        missing = [number for number in range(processes) if number not in found]
        if waited > timeout:
            # Lest a next start take it for one of its own.
            _path(place, process).unlink(missing_ok=True)
            _say(f"gave up after {timeout:.0f} s: {_reason(missing, found, coordinator)}")
            os._exit(1)
        if waited > said and process == min(found, default=process):
            said += _LINES
            _say(f"waiting: {_reason(missing, found, coordinator)}")


def _reason(missing: list[int], found: dict[int, Member], coordinator: str | None) -> str:
    there = ", ".join(f"{n} on {member.host}" for n, member in sorted(found.items()))
    text = f"{_these(missing)} not started; there are {there}"
    if not missing:
        text = f"all processes have started ({there}), but do not reach process 0"
        text += f" at {coordinator}: is its port closed?" if coordinator else ""
    if coordinator and _is_loopback(coordinator):
        text += (
            f". {coordinator} is each host's own address: give the name by which other hosts know that of "
            "process 0"
        )
    return text


def _these(numbers: list[int]) -> str:
    names = ", ".join(map(str, numbers))
    return f"process {names} has" if len(numbers) == 1 else f"processes {names} have"


def _is_loopback(coordinator: str) -> bool:
    host = coordinator.rpartition(":")[0].strip("[]")
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _waiting(place: Path, within: float) -> dict[int, Member]:
    """Those who wait now. Nobody can have joined while somebody waits: these are of a start before."""
    found: dict[int, Member] = {}
    times: dict[int, float] = {}
    for path in place.glob("*"):
        if path.name.isdigit():
            try:
                member = Member(**json.loads(path.read_text()))
                # Of the disk that all write to: the clocks of several hosts differ.
                times[int(path.name)] = path.stat().st_mtime
            except OSError:  # Taken away just now.
                continue
            if not member.joined:
                found[int(path.name)] = member
    newest = max(times.values(), default=0.0)
    return {number: one for number, one in found.items() if newest - times[number] <= within}


def _write(place: Path, process: int, member: Member) -> None:
    place.mkdir(parents=True, exist_ok=True)
    write_whole(_path(place, process), json.dumps(dataclasses.asdict(member)) + "\n")


def _path(place: Path, process: int) -> Path:
    return place / str(process)


def _address() -> str:
    try:
        return socket.gethostbyname(socket.gethostname())
    except OSError:
        return "unknown"


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
