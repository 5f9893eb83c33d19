"""Sampling against diffusers' pipeline, and what a step of a sampler costs outside the network.

    python -m benchmarks.sampling_vs_diffusers [--out FOLDER] [--smoke]

1. Both libraries draw 16 images of 28x28 in 50 steps of DDIM with one U-Net of 3.8 million parameters and
   the same weights, in turn, in one process. Ours divides the batch over all cores as jax's CPU devices;
   PyTorch runs on as many threads, its network in the channels-last layout that suits it best.
2. On one device, the loop of DDIM and of UniPC, network included, against as many calls of the jitted
   network at the same batch. What the loop takes longer is its overhead. The same loop with a network that
   does nothing shows directly what is spent outside the network.

Measurements alternate, so that a machine whose speed drifts favours neither side. The medians of times and
of the ratios of each round are printed, and written to sampling_vs_diffusers.json. No other program should
run meanwhile.
"""

import dataclasses
import json
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import torch
import tyro
from diffusers.pipelines.ddim.pipeline_ddim import DDIMPipeline
from diffusers.schedulers.scheduling_ddim import DDIMScheduler

import diffusion_eqx as dx
from benchmarks.twin_unets import SIZE, Sizes, our_model, their_unet, with_their_weights
from tests.peer_weights import fill_randomly

SIZES = Sizes((32, 64, 128), layers=2, head_dim=32, groups=8)
SAMPLERS = ("ddim", "unipc")
# Between two measurements, so that threads that still wait for work do not disturb the next one.
PAUSE = 0.3


@dataclasses.dataclass(frozen=True)
class Options:
    """Compare sampling with diffusers."""

    out: Path = Path("benchmarks/results")
    """Folder of the figures."""
    count: int = 16
    """Images of one batch."""
    steps: int = 50
    """Steps of sampling."""
    rounds: int = 9
    """How often each side is timed."""
    smoke: bool = False
    """Two images, three steps and one round: whether the benchmark runs at all."""


def main() -> None:
    """Run the benchmark."""
    cores = dx.use_all_cores()
    options = tyro.cli(Options, description=__doc__)
    if options.smoke:
        options = dataclasses.replace(options, count=2, steps=3, rounds=1)
    torch.set_num_threads(cores)
    peer = their_network()
    model = with_their_weights(our_model(SIZES), peer)
    results: dict[str, Any] = {
        "machine": {"cores": cores, "CPU": processor(), "jax": jax.__version__},
        "peers": {"torch": torch.__version__, "diffusers": diffusers.__version__},
        "setting": {
            "images": options.count,
            "steps": options.steps,
            "rounds": options.rounds,
            "parameters": model.num_parameters,
        },
        "largest difference of the networks": difference(model, peer),
    }
    results["pipeline"] = against_pipeline(model, peer, options)
    results["overhead"] = {name: overhead(model, name, options) for name in SAMPLERS}
    report(results)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "sampling_vs_diffusers.json").write_text(json.dumps(results, indent=1))


def their_network() -> Any:
    """diffusers' U-Net, with weights that are not those of its start, many of which are zero."""
    torch.manual_seed(0)
    peer = their_unet(SIZES).eval()
    fill_randomly(peer, scale=0.02)
    return peer


def difference(model: dx.models.DDIMModel, peer: Any) -> float:
    """The largest difference between the outputs of both networks, which are of the size of 1."""
    x = np.random.default_rng(0).standard_normal((2, SIZE, SIZE, 1)).astype(np.float32)
    with torch.inference_mode():
        theirs = peer(torch.tensor(x.transpose(0, 3, 1, 2)), torch.tensor([17, 900])).sample
    backbone = eqx.nn.inference_mode(model.denoiser.backbone)
    ours = eqx.filter_jit(backbone)(jnp.asarray(x), jnp.asarray([17.0, 900.0]), None)
    found = float(np.abs(np.asarray(ours) - theirs.numpy().transpose(0, 2, 3, 1)).max())
    assert found < 1e-4, f"the networks differ by {found:.2g}: they do not have the same weights"
    return found


def against_pipeline(
    model: dx.models.DDIMModel, peer: Any, options: Options
) -> dict[str, float | list[float]]:
    """Seconds of ours and of diffusers' pipeline, and their ratio."""
    pipeline = DDIMPipeline(peer, DDIMScheduler())
    pipeline.set_progress_bar_config(disable=True)
    generator = torch.Generator().manual_seed(0)
    key = jax.random.key(0)

    def ours() -> np.ndarray:
        images = model.sample(options.count, "ddim", steps=options.steps, key=key)
        return np.asarray(images)

    def theirs() -> np.ndarray:
        drawn: Any = pipeline(
            batch_size=options.count,
            num_inference_steps=options.steps,
            generator=generator,
            output_type="np",
        )
        return drawn.images

    assert ours().shape == theirs().shape
    return compared(("ours", ours), ("diffusers", theirs), options.rounds)


def overhead(model: dx.models.DDIMModel, name: str, options: Options) -> dict[str, Any]:
    """What a step of a sampler costs besides the network, on one device."""
    plan = model.plan(name, steps=options.steps)
    idle = eqx.tree_at(lambda m: m.denoiser.backbone, model, Idle()).plan(name, steps=options.steps)
    x = jax.random.normal(jax.random.key(0), (options.count, *plan.shape))
    level = model.schedule.at(0.5)
    denoiser = eqx.nn.inference_mode(model.denoiser)

    # Under a jit of its own, a batch stays on one device.
    @eqx.filter_jit
    def drawn(plan: dx.models.Plan, key: jax.Array) -> jax.Array:
        return dx.sample(
            plan.denoiser,
            plan.sampler,
            plan.shape,
            count=options.count,
            steps=options.steps,
            key=key,
            decode=plan.decode,
        )

    @eqx.filter_jit
    def network(denoiser: dx.Denoiser, x: jax.Array) -> jax.Array:
        return denoiser.network(denoiser.backbone, x, level)

    def loop() -> jax.Array:
        return drawn(plan, jax.random.key(1)).block_until_ready()

    def forwards() -> None:
        for _ in range(options.steps):
            network(denoiser, x).block_until_ready()

    def outside() -> jax.Array:
        return drawn(idle, jax.random.key(1)).block_until_ready()

    for action in (loop, forwards, outside):
        action()
    rows = compared(("loop", loop), ("forwards", forwards), options.rounds)
    without = statistics.median(timed(outside) for _ in range(max(3, options.rounds)))
    return {
        **rows,
        "overhead": rows["ratio"] - 1.0,
        "seconds without network": without,
        "outside the network": without / rows["forwards"],
    }


class Idle(eqx.Module):
    """A network that does nothing."""

    def __call__(self, x, c_noise, cond, *, key=None):
        return x


def compared(
    first: tuple[str, Callable[[], Any]], second: tuple[str, Callable[[], Any]], rounds: int
) -> dict[str, Any]:
    """The median seconds of two actions that take turns, and the median of their ratios.

    Both have run before, so that nothing is compiled.
    """
    pairs = [(timed(first[1]), timed(second[1])) for _ in range(rounds)]
    ratios = [a / b for a, b in pairs]
    return {
        first[0]: statistics.median(a for a, _ in pairs),
        second[0]: statistics.median(b for _, b in pairs),
        "ratio": statistics.median(ratios),
        "ratios": [round(ratio, 4) for ratio in ratios],
    }


def timed(action: Callable[[], Any]) -> float:
    """Seconds that an action takes, which waits for its result itself."""
    time.sleep(PAUSE)
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def processor() -> str:
    """The name of the CPU, where Linux says it."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else os.uname().machine


def report(results: dict[str, Any]) -> None:
    """Print the figures."""
    setting, pipeline = results["setting"], results["pipeline"]
    print(
        f"{setting['images']} images, {setting['steps']} steps, {setting['parameters']:,} parameters, "
        f"{results['machine']['cores']} cores; medians of {setting['rounds']} rounds"
    )
    print(
        f"DDIM: ours {pipeline['ours']:.3f} s, diffusers {pipeline['diffusers']:.3f} s, "
        f"ratio {pipeline['ratio']:.3f} (goal: at most 0.95)"
    )
    for name, row in results["overhead"].items():
        print(
            f"{name} on one device: loop {row['loop']:.3f} s, forwards {row['forwards']:.3f} s, "
            f"overhead {row['overhead']:+.1%} (goal: at most 2 %); "
            f"outside the network {row['outside the network']:.2%}"
        )


if __name__ == "__main__":
    main()
