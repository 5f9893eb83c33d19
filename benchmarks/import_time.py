"""What `import diffusion_eqx` takes and loads, against `import jax, equinox`.

    python -m benchmarks.import_time [--rounds N] [--out FOLDER]

Each import runs in a fresh interpreter; the imports take turns, and the medians are compared. The goals: at
most 1.2 times jax and equinox, and no package that only some sessions need. The rooms and names of the
library are loaded when they are first used, so what the first use of some of them takes is shown too.
"""

import dataclasses
import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import tyro

BASE = "import jax, equinox"
LIBRARY = "import diffusion_eqx as dx"
STATEMENTS = {
    "jax and equinox": BASE,
    "diffusion_eqx": LIBRARY,
    "… and dx.Denoiser": f"{LIBRARY}; dx.Denoiser",
    "… and dx.sample": f"{LIBRARY}; dx.sample",
    "… and dx.load_model": f"{LIBRARY}; dx.load_model",
    "… and dx.train": f"{LIBRARY}; dx.train",
}
# Packages that an import of the library must not load.
UNWANTED = ("matplotlib", "sklearn", "PIL", "orbax", "grain", "torch", "diffusers", "scipy.stats")
GOAL = 1.2

# Prints the seconds of a statement, and the packages that it loaded.
PROBE = """
import json, sys, time
before, start = set(sys.modules), time.perf_counter()
{statement}
seconds = time.perf_counter() - start
loaded = sorted({{name.split(".")[0] for name in set(sys.modules) - before}} - sys.stdlib_module_names)
unwanted = [name for name in {unwanted} if name in sys.modules]
print(json.dumps({{"seconds": seconds, "packages": loaded, "unwanted": unwanted}}))
"""


@dataclasses.dataclass(frozen=True)
class Options:
    """Time the import."""

    rounds: int = 7
    """Fresh interpreters for each import."""
    out: Path = Path("benchmarks/results")
    """Folder of the figures."""


def main() -> None:
    """Run the benchmark."""
    options = tyro.cli(Options, description=__doc__)
    # Once before, so that no round has to write byte code.
    found = {name: probe(statement) for name, statement in STATEMENTS.items()}
    times: dict[str, list[float]] = {name: [] for name in STATEMENTS}
    for _ in range(options.rounds):
        for name, statement in STATEMENTS.items():
            times[name].append(probe(statement)["seconds"])
    base = statistics.median(times["jax and equinox"])
    known = set(found["jax and equinox"]["packages"])
    rows = {}
    for name in STATEMENTS:
        seconds = statistics.median(times[name])
        rows[name] = {
            "seconds": seconds,
            "of jax and equinox": seconds / base,
            "packages besides those of jax and equinox": [
                package for package in found[name]["packages"] if package not in known
            ],
            "unwanted": found[name]["unwanted"],
        }
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "import_time.json").write_text(json.dumps(rows, indent=1))
    report(rows)


def probe(statement: str) -> dict[str, Any]:
    """What a fresh interpreter says of a statement."""
    code = PROBE.format(statement=statement, unwanted=UNWANTED)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def report(rows: dict[str, dict[str, Any]]) -> None:
    """Print the figures."""
    print(f"goal: diffusion_eqx takes at most {GOAL} of the time of jax and equinox")
    for name, row in rows.items():
        print(f"{name}: {row['seconds']:.2f} s, {row['of jax and equinox']:.2f}")
        for what in ("packages besides those of jax and equinox", "unwanted"):
            if row[what]:
                print(f"    {what}: {', '.join(row[what])}")


if __name__ == "__main__":
    main()
