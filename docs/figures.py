"""Draws the figures of the documentation's concepts, from exact denoisers: `make docs-figures`.

python docs/figures.py [NAME …]      all figures, or those that are named, into docs/pages/figures/
"""

import sys
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib as mpl
import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

import diffusion_eqx as dx

OUT = Path(__file__).parent / "pages" / "figures"
STYLE = {
    "axes.prop_cycle": mpl.cycler(
        color=["#3f51b5", "#e0722c", "#2e9e6b", "#b5388d", "#7a7a7a", "#1a9bc7"]
    ),
    "axes.spines.right": False,
    "axes.spines.top": False,
    "font.size": 9,
    "legend.frameon": False,
    "savefig.dpi": 100,
    # The same figure is the same file: no date, no random names within.
    "svg.hashsalt": "diffusion_eqx",
}
COSINE = dx.schedules.DiscreteSchedule(dx.schedules.cosine_betas(1000))
SCHEDULES = {
    "linear": dx.schedules.DiscreteSchedule(dx.schedules.linear_betas(1000, 1e-4, 0.02)),
    "cosine": COSINE,
    "VP": dx.schedules.VPSchedule(),
    "VE": dx.schedules.VESchedule(),
    "EDM": dx.schedules.EDMSchedule(),
    "flow": dx.schedules.FlowSchedule(),
}


def schedule() -> None:
    """log-SNR, alpha and sigma of the schedules."""
    _, (left, right) = plt.subplots(1, 2, figsize=(8, 3))
    for name, kind in SCHEDULES.items():
        level = kind.at(jnp.linspace(1e-3, 1.0, 300))
        (line,) = left.plot(level.time, level.log_snr, label=name)
        # Linear betas are those of VP; the sigma of VE and EDM runs to 50 and more.
        if name in ("cosine", "VP", "flow"):
            right.plot(level.time, level.alpha, color=line.get_color())
            right.plot(level.time, level.sigma, "--", color=line.get_color())
    left.set(xlabel="time", ylabel="log-SNR", ylim=(-22, 22))
    left.legend(ncols=2)
    right.set(xlabel="time", ylabel="alpha, sigma")


def parameterization() -> None:
    """c_skip and c_out of the parameterizations on the cosine schedule."""
    kinds = dx.parameterizations
    shown = {
        "epsilon": kinds.EpsilonPrediction(),
        "x0": kinds.X0Prediction(),
        "v": kinds.VPrediction(),
        "EDM": kinds.EDMPrediction(),
    }
    level = COSINE.at(jnp.linspace(1e-3, 0.999, 400))
    _, (left, right) = plt.subplots(1, 2, figsize=(8, 3))
    for name, kind in shown.items():
        c = kind.coefficients(COSINE, level)
        left.plot(level.log_snr, c.c_skip, label=name)
        right.plot(level.log_snr, jnp.abs(c.c_out))
    for axes, what in (
        (left, "c_skip, the share of x"),
        (right, "|c_out|, the share of the network"),
    ):
        axes.set(xlabel="log-SNR  (noise ← → data)", ylabel=what, xlim=(-8, 8), ylim=(-0.1, 6))
    left.legend()


def denoiser() -> None:
    """The exact denoiser of three Gaussians at falling noise."""
    mixture = dx.exact.GaussianMixtureDenoiser(
        jnp.array([0.3, 0.4, 0.3]),
        jnp.array([[-2.0], [0.0], [1.5]]),
        jnp.array([0.15, 0.15, 0.15]),
        COSINE,
    )
    x = jnp.linspace(-3.0, 3.0, 400)[:, None]
    _, axes = plt.subplots(figsize=(5.5, 3.4))
    for time in (0.9, 0.6, 0.35, 0.15):
        level = COSINE.at(time)
        x0, _ = mixture(x * level.alpha + 0.0, level)
        axes.plot(
            x[:, 0], x0[:, 0], label=f"time {time:g}, sigma/alpha {level.sigma / level.alpha:.2g}"
        )
    for mean in (-2.0, 0.0, 1.5):
        axes.axhline(mean, color="0.85", zorder=0)
    axes.set(xlabel="x/alpha", ylabel="estimate of x0")
    axes.legend()


def sampler() -> None:
    """Paths of a deterministic and of a stochastic method."""
    data = dx.exact.GaussianMixtureDenoiser(
        jnp.array([0.35, 0.65]), jnp.array([[-1.6], [1.0]]), jnp.array([0.15, 0.25]), COSINE
    )
    steps, count = 60, 40
    _, axes = plt.subplots(1, 2, figsize=(8, 3), sharey=True)
    methods = {"DDIM, eta = 0": dx.samplers.DDIMSampler(), "DDPM": dx.samplers.DDPMSampler()}
    for panel, (name, method) in zip(axes, methods.items(), strict=True):
        paths = dx.samplers.trajectory(
            data, method, (1,), count=count, steps=steps, every=1, key=jax.random.key(3)
        )
        paths = np.asarray(paths)[:, :, 0]
        panel.plot(np.arange(len(paths)), paths, color="#3f51b5", alpha=0.35, linewidth=0.7)
        panel.set(title=name, xlabel="step")
    axes[0].set(ylabel="x")


def grid() -> None:
    """The levels of each grid at ten steps."""
    grids = {
        "Trailing": dx.samplers.TrailingGrid(),
        "Leading": dx.samplers.LeadingGrid(),
        "Linspace": dx.samplers.LinspaceGrid(),
        "Uniform": dx.samplers.UniformGrid(),
        "Karras": dx.samplers.KarrasGrid(),
        "LogSNR": dx.samplers.LogSNRGrid(),
        "Focused": dx.samplers.FocusedGrid(),
    }
    _, (upper, lower) = plt.subplots(2, 1, figsize=(8, 5), layout="constrained")
    for row, (name, kind) in enumerate(grids.items()):
        levels = kind(COSINE, jnp.arange(11), jnp.array(10))
        upper.plot(levels.time, np.full(11, row), "o", markersize=5, label=name)
        noisy = ~levels.clean
        lower.plot(levels.log_snr[noisy], np.full(int(noisy.sum()), row), "o", markersize=5)
    for axes, what in ((upper, "time"), (lower, "log-SNR")):
        axes.set_yticks(range(len(grids)), list(grids))
        axes.set(xlabel=what)
        axes.invert_yaxis()
        axes.grid(axis="y", color="0.9")
    upper.invert_xaxis()


def guidance() -> None:
    """Samples of one of two overlapping classes at three scales."""
    data = dx.exact.GaussianMixtureDenoiser(
        jnp.array([0.5, 0.5]), jnp.array([[-0.6, 0.0], [0.6, 0.0]]), jnp.array([0.55, 0.55]), COSINE
    )
    count, method = 500, dx.samplers.HeunSampler()
    key, other = jax.random.split(jax.random.key(0))
    everything = dx.sample(data, method, (2,), count=1000, steps=25, key=other)
    _, panels = plt.subplots(1, 3, figsize=(8, 2.9), sharex=True, sharey=True)
    for panel, scale in zip(panels, (1.0, 2.0, 4.0), strict=True):
        guided = dx.Guided(data, dx.guidance.ClassifierFreeGuidance(scale))
        points = dx.sample(
            guided, method, (2,), count=count, steps=25, key=key, cond=jnp.ones(count, int)
        )
        panel.scatter(*everything.T, s=2, color="0.8")
        panel.scatter(*points.T, s=2, color="#e0722c")
        panel.set(title=f"w = {scale:g}", aspect="equal", xlim=(-2.6, 2.6), ylim=(-2.2, 2.2))


def artifact() -> None:
    """How an artifact is made and used."""
    _, axes = plt.subplots(figsize=(8, 2.6))
    axes.set(xlim=(0, 16), ylim=(0, 5))
    axes.axis("off")
    _box(axes, 0.1, 1.1, 3.6, 2.8, "#3f51b5", "Python", "model\nsampler, guidance\nnumbers")
    held = "manifest\nprograms: init, step, finish\nweights\nreference images"
    _box(axes, 5.4, 0.7, 4.6, 3.6, "#e0722c", "artifact, one file", held)
    _box(
        axes,
        11.9,
        1.1,
        4.0,
        2.8,
        "#2e9e6b",
        "diffusion-sampler",
        "init\nstep, again and again\nfinish",
    )
    for start, end, word in ((3.8, 5.3, "export"), (10.1, 11.8, "load")):
        shape = {"arrowstyle": "-|>", "mutation_scale": 12, "color": "0.3"}
        axes.add_patch(FancyArrowPatch((start, 2.5), (end, 2.5), **shape))
        axes.text(0.5 * (start + end), 2.75, word, ha="center", color="0.3")


def _box(
    axes: Axes, x: float, y: float, width: float, height: float, color: str, title: str, text: str
) -> None:
    style = {"boxstyle": "round,pad=0,rounding_size=0.2", "edgecolor": color, "facecolor": "white"}
    axes.add_patch(FancyBboxPatch((x, y), width, height, **style))
    axes.text(x + 0.2, y + height - 0.3, title, weight="bold", color=color, va="top")
    axes.text(x + 0.2, y + height - 1.0, text, va="top", linespacing=1.5)


# Those with thousands of points are pixels, the others lines.
FIGURES: dict[str, Callable[[], None]] = {
    "schedule.svg": schedule,
    "parameterization.svg": parameterization,
    "denoiser.svg": denoiser,
    "sampler.png": sampler,
    "grid.svg": grid,
    "guidance.png": guidance,
    "artifact.svg": artifact,
}


def main(names: list[str]) -> None:
    """Draw the figures whose names, without their endings, are given; all if none is."""
    mpl.use("Agg")
    OUT.mkdir(parents=True, exist_ok=True)
    with plt.rc_context(STYLE):
        for file, draw in FIGURES.items():
            if names and Path(file).stem not in names:
                continue
            draw()
            metadata = {"Date": None} if file.endswith(".svg") else {"Software": None}
            plt.savefig(OUT / file, bbox_inches="tight", metadata=metadata)
            plt.close()
            print(OUT / file)


if __name__ == "__main__":
    main(sys.argv[1:])
