"""What diffrax costs over our own loop: the same steps on the same U-Net, timed in turn.

    python -m benchmarks.diffrax_overhead

Euler and Heun by diffrax (`diffrax:Euler`, `diffrax:Heun`) against DDIM and Heun of ours, at equal
evaluations, with the U-Net of the demo. Prints the median of the ratios of pairwise runs, and of the times
to compile.
"""

import statistics
import time
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax

import diffusion_eqx as dx

PAIRS = [("diffrax:Euler", "euler"), ("diffrax:Heun", "heun")]
STEPS, BATCH, ROUNDS, SHAPE = 25, 8, 7, (28, 28, 1)


def main() -> None:
    """Run the benchmark."""
    backbone = dx.config.UNetBackboneConfig(
        hidden_dims=(16, 32, 64), attention_resolutions=(8,), num_classes=10
    )
    config = dx.config.DDIMConfig(backbone=backbone, input_shape=SHAPE)
    model = dx.models.DDIMModel(config, key=jax.random.key(0))
    denoiser = eqx.nn.inference_mode(model.denoiser)
    for names in PAIRS:
        compiled, compiling = zip(*(compile_loop(name, denoiser) for name in names), strict=True)
        for run in compiled:
            run()
        ratios = []
        for _ in range(ROUNDS):
            theirs, ours = (timed(run) for run in compiled)
            ratios.append(theirs / ours)
        print(
            f"{names[0]} / {names[1]}: run {statistics.median(ratios):.3f} "
            f"(min {min(ratios):.3f}, max {max(ratios):.3f}), "
            f"compile {compiling[0] / compiling[1]:.3f}"
        )


def compile_loop(name: str, denoiser: dx.Denoiser) -> tuple[Callable[[], jax.Array], float]:
    """The compiled loop, and the seconds that compiling took."""
    sampler = dx.samplers.with_grid(dx.samplers.find_sampler(name), "logsnr")

    @eqx.filter_jit
    def loop(denoiser: dx.Denoiser, key: jax.Array) -> jax.Array:
        return dx.sample(denoiser, sampler, SHAPE, count=BATCH, steps=STEPS, key=key)

    begin = time.perf_counter()
    lowered = loop.lower(denoiser, jax.random.key(0))  # pyright: ignore[reportFunctionMemberAccess]
    compiled = lowered.compile()
    seconds = time.perf_counter() - begin
    return lambda: compiled(denoiser, jax.random.key(0)), seconds


def timed(run: Callable[[], Any]) -> float:
    """Seconds of a run, until its result is there."""
    begin = time.perf_counter()
    jax.block_until_ready(run())
    return time.perf_counter() - begin


if __name__ == "__main__":
    main()
