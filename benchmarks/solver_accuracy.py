"""Error of every solver at equal numbers of evaluations, with an exact denoiser.

    python -m benchmarks.solver_accuracy [--out FOLDER]

The data are a mixture of Gaussians in the plane under the linear schedule of 1,000 timesteps; its denoiser
and its probability flow are known exactly. Each solver takes the same 512 noises to samples. The error is
the root mean square of their distance from where the exact flow leads. The solvers are ours, diffrax's, and
each scheduler of diffusers that solves the flow, in the best of the spacings that it supports, at 5, 10, 20
and 50 evaluations. Writes solver_accuracy.json and solver_accuracy.png, and prints a table.
"""

import dataclasses
import inspect
import json
import warnings
from pathlib import Path

import diffusers
import equinox as eqx
import jax
import jax.numpy as jnp
import matplotlib
import numpy as np
import torch
import tyro
from rich.console import Console
from rich.table import Table

import diffusion_eqx as dx

EVALUATIONS = (5, 10, 20, 50)
SCHEDULE = dx.schedules.DiscreteSchedule(dx.schedules.linear_betas(1000, 1e-4, 0.02))
DENOISER = dx.testing.three_gaussians(SCHEDULE)
RECOMMENDED = "unipc"

# diffusers' class, its options, and evaluations of a step.
PEERS = {
    "DDIM": ("DDIMScheduler", {"clip_sample": False}, 1),
    "Euler": ("EulerDiscreteScheduler", {}, 1),
    "Heun": ("HeunDiscreteScheduler", {}, 2),
    "LMS": ("LMSDiscreteScheduler", {}, 1),
    "DPM++ 2M": ("DPMSolverMultistepScheduler", {"solver_order": 2}, 1),
    "DPM++ 3M": ("DPMSolverMultistepScheduler", {"solver_order": 3}, 1),
    "DPM++ 2S": ("DPMSolverSinglestepScheduler", {"solver_order": 2}, 1),
    "DPM++ 3S": ("DPMSolverSinglestepScheduler", {"solver_order": 3}, 1),
    "UniPC 2": ("UniPCMultistepScheduler", {"solver_order": 2}, 1),
    "UniPC 3": ("UniPCMultistepScheduler", {"solver_order": 3}, 1),
    "DEIS 2": ("DEISMultistepScheduler", {"solver_order": 2}, 1),
    "DEIS 3": ("DEISMultistepScheduler", {"solver_order": 3}, 1),
    "KDPM2": ("KDPM2DiscreteScheduler", {}, 2),
    "PNDM": ("PNDMScheduler", {"skip_prk_steps": True}, 1),
}
SPACINGS = [
    {"timestep_spacing": "trailing"},
    {"timestep_spacing": "leading"},
    {"timestep_spacing": "linspace"},
    {"timestep_spacing": "linspace", "use_karras_sigmas": True},
    {"timestep_spacing": "linspace", "use_exponential_sigmas": True},
]
# diffrax's solvers and their stages.
DIFFRAX = {"Euler": 1, "Heun": 2, "Midpoint": 2, "Ralston": 2, "Bosh3": 3, "Tsit5": 6, "Dopri5": 6}


@dataclasses.dataclass(frozen=True)
class Options:
    """Where the table and the plot go."""

    out: Path = Path("benchmarks/results")


def main() -> None:
    """Run the comparison."""
    options = tyro.cli(Options)
    options.out.mkdir(parents=True, exist_ok=True)
    noise = jax.random.normal(jax.random.key(0), (512, 2))
    first = SCHEDULE.at(1.0)
    ratio = float(first.sigma / first.alpha)
    exact = dx.testing.exact_flow(np.asarray(noise) * ratio, ratio)

    def error(x) -> float:
        return float(np.sqrt(np.mean((np.asarray(x, np.float64) - exact) ** 2)))

    rows: dict[str, dict[int, float]] = {}
    for name in ("ddim", "heun", "dpm++2s", "dpm++2m", "dpm++3m", "unipc", "deis", "lms"):
        for grid in ("logsnr", "focused", "karras", "trailing"):
            rows[f"ours {name} {grid}"] = {
                n: error(ours(name, grid, noise, n)) for n in EVALUATIONS
            }
    for solver, stages in DIFFRAX.items():
        rows[f"diffrax {solver}"] = {
            n: error(
                dx.samplers.sample_from(
                    DENOISER,
                    dx.samplers.find_sampler(f"diffrax:{solver}"),
                    noise,
                    steps=(n - 1) // stages + 1,
                )
            )
            for n in EVALUATIONS
            if (n - 1) // stages >= 1
        }
    for name in PEERS:
        best: dict[int, float] = {}
        for spacing in SPACINGS:
            for n in EVALUATIONS:
                found = peer(name, spacing, noise, n)
                if found is not None:
                    best[n] = min(best.get(n, np.inf), error(found))
        rows[f"diffusers {name}"] = best
    (options.out / "solver_accuracy.json").write_text(json.dumps(rows, indent=1))
    report(rows)
    plot(rows, options.out / "solver_accuracy.png")


def ours(name: str, grid: str, noise, evaluations: int):
    """The most steps of a sampler of ours that so many evaluations pay for."""
    sampler = dx.samplers.with_grid(dx.samplers.find_sampler(name), grid)
    cost = sampler.evaluations
    assert cost is not None
    # The last step takes one evaluation, whatever the others take.
    steps = (evaluations - 1) // cost + 1
    return dx.samplers.sample_from(DENOISER, sampler, noise, steps=steps)


@eqx.filter_jit
def epsilon(x, timestep):
    """What diffusers asks a network: the noise at a real-valued timestep."""
    return DENOISER(x, (timestep + 1.0) / 1000.0).eps


def peer(name: str, spacing: dict, noise, evaluations: int) -> np.ndarray | None:
    """A sample by diffusers; None where it does not support the spacing or the number of steps."""
    kind, own, stages = PEERS[name]
    made = getattr(diffusers, kind)
    known = inspect.signature(made.__init__).parameters.keys()
    if not spacing.keys() <= known and spacing is not SPACINGS[0]:
        return None  # the same as without that option
    betas = {"beta_start": 1e-4, "beta_end": 0.02, "beta_schedule": "linear"}
    options = {k: v for k, v in {**betas, **own, **spacing}.items() if k in known}
    steps = (evaluations - 1) // stages + 1 if stages > 1 else evaluations
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            scheduler = made(**options)
            scheduler.set_timesteps(steps)
            x = torch.from_numpy(np.array(noise)) * float(SCHEDULE.at(1.0).sigma)
            sigmas = getattr(scheduler, "sigmas", None)
            in_sigma = kind.startswith(("Euler", "Heun", "LMS", "KDPM"))
            if in_sigma and sigmas is not None:
                x = x * (sigmas[0] ** 2 + 1) ** 0.5
            calls = 0
            for timestep in scheduler.timesteps:
                entered = scheduler.scale_model_input(x, timestep)
                output = epsilon(jnp.asarray(entered.numpy()), jnp.float32(timestep))
                calls += 1
                x = scheduler.step(torch.from_numpy(np.array(output)), timestep, x).prev_sample
        except (ValueError, IndexError, TypeError, RuntimeError) as error:
            print(f"diffusers {name} {spacing} at {evaluations}: {error}")
            return None
    return x.numpy() if calls <= evaluations else None


def report(rows: dict[str, dict[int, float]]) -> None:
    """The table, best last, and the verdict on the recommended sampler."""
    table = Table("solver", *map(str, EVALUATIONS))
    for name, row in sorted(rows.items(), key=lambda item: -item[1].get(20, np.inf)):
        table.add_row(name, *(f"{row[n]:.2e}" if n in row else "–" for n in EVALUATIONS))
    Console().print(table)
    mine = rows[f"ours {RECOMMENDED} focused"]
    for n in EVALUATIONS:
        others = {k: r[n] for k, r in rows.items() if not k.startswith("ours") and n in r}
        best = min(others, key=lambda k: others[k])
        print(f"{n} evaluations: ours {mine[n]:.2e}, best other {others[best]:.2e} ({best})")


def plot(rows: dict[str, dict[int, float]], path: Path) -> None:
    """Error against evaluations."""
    matplotlib.use("agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(8, 5.5), layout="constrained")
    styles = {"ours": "-", "diffusers": ":", "diffrax": "--"}
    for name, row in rows.items():
        family = name.split()[0]
        if family == "ours" and not name.endswith(("logsnr", "focused")):
            continue
        axes.loglog(list(row), list(row.values()), styles[family], marker=".", label=name)
    axes.set(xlabel="evaluations of the denoiser", ylabel="error of the samples (RMS)")
    axes.legend(fontsize=6, ncols=2)
    axes.grid(alpha=0.3, which="both")
    figure.savefig(path, dpi=130)


if __name__ == "__main__":
    main()
