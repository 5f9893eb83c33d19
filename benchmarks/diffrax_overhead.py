"""What diffrax costs over our own loop: the same steps on the same U-Net, timed in turn.

    python -m benchmarks.diffrax_overhead

Euler and Heun by diffrax (`diffrax:Euler`, `diffrax:Heun`) against DDIM and Heun of ours, at equal
evaluations, with the demo's U-Net; median of the ratios of pairwise runs, and of the times to compile.
"""

import statistics
import time

import equinox as eqx
import jax

from diffusion_eqx.cli.train import Train
from diffusion_eqx.models import DDIMModel
from diffusion_eqx.samplers import build_sampler, sample

PAIRS = [("diffrax:Euler", "euler"), ("diffrax:Heun", "heun")]
STEPS, BATCH, ROUNDS = 25, 8, 7


def main() -> None:
    """Run the benchmark."""
    config = Train(out="unused").model  # pyright: ignore[reportArgumentType]
    model = DDIMModel(config, key=jax.random.key(0))
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


def compile_loop(name: str, denoiser):
    """The compiled loop, and the seconds that compiling took."""
    sampler = build_sampler(name, denoiser, grid="logsnr")

    @eqx.filter_jit
    def loop(sampler, key):
        return sample(sampler, (28, 28, 1), count=BATCH, steps=STEPS, key=key)

    begin = time.perf_counter()
    lowered = loop.lower(sampler, jax.random.key(0))  # pyright: ignore[reportFunctionMemberAccess]
    compiled = lowered.compile()
    seconds = time.perf_counter() - begin
    return lambda: compiled(sampler, jax.random.key(0)), seconds


def timed(run) -> float:
    """Seconds of a run, until its result is there."""
    begin = time.perf_counter()
    jax.block_until_ready(run())
    return time.perf_counter() - begin


if __name__ == "__main__":
    main()
