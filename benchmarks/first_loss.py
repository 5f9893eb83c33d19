"""How long a user waits for the first loss after `diffusion-eqx train`.

    python -m benchmarks.first_loss [--rounds N] [--out FOLDER]

Starts the command line's default training, on Fashion-MNIST: once with an empty compile cache, then several
times with the cache that the first start has filled. Each run is stopped after its first loss. Prints the
seconds from start to that line. The goal: at most 10 s with a filled cache.
"""

import dataclasses
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import tyro

GOAL = 10.0


@dataclasses.dataclass(frozen=True)
class Options:
    """Time the first loss."""

    rounds: int = 5
    """Starts with a filled cache."""
    out: Path = Path("benchmarks/results")
    """Folder of the figures."""
    options: Path | None = None
    """A file of options for `diffusion-eqx train`, if not the default training."""


def main() -> None:
    """Run the benchmark."""
    options = tyro.cli(Options, description=__doc__)
    more = () if options.options is None else (options.options.resolve(),)
    with tempfile.TemporaryDirectory() as place:
        empty, *filled = (
            seconds_to_first_loss(Path(place), f"run{start}", more)
            for start in range(1 + options.rounds)
        )
    figures = {"empty cache": empty, "filled cache": filled, "median": statistics.median(filled)}
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "first_loss.json").write_text(json.dumps(figures, indent=1))
    print(f"goal: the first loss at most {GOAL:.0f} s after the start, with a filled compile cache")
    print(f"empty cache: {empty:.1f} s")
    print(f"filled cache: {figures['median']:.1f} s (from {min(filled):.1f} to {max(filled):.1f})")


def seconds_to_first_loss(place: Path, name: str, more: tuple[Path, ...]) -> float:
    """The time from the start of a training to its first loss on the screen; it is stopped then."""
    program = Path(sys.executable).parent / "diffusion-eqx"
    environment = {
        **os.environ,
        "JAX_COMPILATION_CACHE_DIR": str(place / "programs"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "PYTHONUNBUFFERED": "1",
    }
    start = time.perf_counter()
    with subprocess.Popen(
        [program, "train", *more, "-o", place / name],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as run:
        assert run.stdout is not None
        said = []
        for line in run.stdout:
            said.append(line)
            if "has loss" in line:
                seconds = time.perf_counter() - start
                run.send_signal(signal.SIGINT)
                run.communicate()
                return seconds
    raise RuntimeError("the training gave no loss:\n" + "".join(said))


if __name__ == "__main__":
    main()
