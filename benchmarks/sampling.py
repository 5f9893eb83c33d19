"""Times of a 50-step DDIM sample, in Python and natively; all figures as ratios from one run.

    python benchmarks/sampling.py MODEL.safetensors ARTIFACT.safetensors

1. The whole loop, one `lax.scan` under one jit, against 50 calls of the jitted network.
2. The native program's loop (init, steps, finish) against Python's whole loop.
3. A cold start of the native program, split by phase, without and with its cache.

Measurements alternate, so that a machine whose speed drifts favours neither side. The median of the
pairwise ratios is printed.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp

import diffusion_eqx as dx

STEPS = 50
BATCH = 8
ROUNDS = 7
GUIDANCE = 2.0
SAMPLER = Path(sys.executable).parent / "diffusion-sampler"


def seconds(action) -> float:
    """Time of an action that returns arrays, until they are there."""
    start = time.perf_counter()
    jax.block_until_ready(action())
    return time.perf_counter() - start


def native(artifact: Path, cache: str, *flags: object) -> dict:
    """The native program's own report of a run of one batch."""
    line = [SAMPLER, "sample", artifact, "-o", Path(cache) / "x.npy", "-n", BATCH, "--batch", BATCH]
    line += ["--steps", STEPS, "--guidance-scale", GUIDANCE, "--seed", 1, "--json", *flags]
    done = subprocess.run(
        list(map(str, line)),
        env=os.environ | {"XDG_CACHE_HOME": cache},
        capture_output=True,
        check=True,
    )
    return json.loads(done.stdout)


def loop_of(report: dict) -> float:
    """Seconds of init, steps and finish."""
    milliseconds = report["milliseconds"]
    return sum(milliseconds[phase] for phase in ("init", "steps", "finish")) / 1e3


def main() -> None:
    """Run the benchmark."""
    model, artifact = dx.load_model(sys.argv[1]), Path(sys.argv[2])
    denoiser = model.plan("ddim", steps=STEPS, guidance=GUIDANCE).denoiser
    labels = jnp.arange(BATCH) % (model.num_classes or 1)
    x = jax.random.normal(jax.random.key(0), (BATCH, *model.config.input_shape))
    forward = eqx.filter_jit(lambda denoiser, x, labels: denoiser(x, jnp.asarray(0.5), labels).x0)

    def whole():
        return model.sample(
            BATCH, "ddim", steps=STEPS, labels=labels, guidance=GUIDANCE, key=jax.random.key(1)
        )

    def fifty_forwards():
        return [forward(denoiser, x, labels) for _ in range(STEPS)]

    with tempfile.TemporaryDirectory() as cache:
        cold = native(artifact, cache)
        warm = native(artifact, cache)
        for action in (whole, fifty_forwards):
            seconds(action)
        rows = [
            (seconds(whole), seconds(fifty_forwards), loop_of(native(artifact, cache)))
            for _ in range(ROUNDS)
        ]
    print(f"batch {BATCH}, {STEPS} steps, guided; medians of {ROUNDS} interleaved rounds")
    for name, column in zip(
        ("scan", "50 forwards", "native loop"), zip(*rows, strict=True), strict=True
    ):
        print(f"  {name:12} {statistics.median(column):.3f} s")
    print(f"  scan / 50 forwards: {statistics.median(a / b for a, b, _ in rows):.3f}")
    print(f"  native / scan:      {statistics.median(c / a for a, _, c in rows):.3f}")
    for name, report in (("first start", cold), ("start with cache", warm)):
        phases = {k: round(v, 1) for k, v in report["milliseconds"].items()}
        print(f"{name}: {phases} ms; {report['peak_memory_bytes'] / 2**20:.0f} MiB")


if __name__ == "__main__":
    main()
