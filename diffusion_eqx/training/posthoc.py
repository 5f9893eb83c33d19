"""Averages of any length, made after training from snapshots of two (Karras et al. 2024, section 3.2)."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from diffusion_eqx.models import AbstractDiffusionModel, read_arrays, write_arrays
from diffusion_eqx.training.averages import gamma_of
from diffusion_eqx.training.callback import Callback
from diffusion_eqx.training.devices import on_one_device, writes
from diffusion_eqx.training.digest import digest
from diffusion_eqx.training.folder import AVERAGES
from diffusion_eqx.training.parts import trainable
from diffusion_eqx.training.recipe import power_name
from diffusion_eqx.training.run import Run

TreeT = TypeVar("TreeT")

FORMAT = "diffusion_eqx.averages"
FORMAT_VERSION = "1"
_NAME = re.compile(r"(\d+)\.safetensors")


class Snapshots(Callback):
    """Writes the power-function averages of a run into a folder, `ema_snapshots` times and last.

    Snapshots of later steps than the run goes on from are deleted. `reconstruct_average` reads them.
    """

    optional = True

    def __init__(self, folder: str | Path):
        self._folder = Path(folder)

    def start(self, run: Run) -> None:
        """Delete what a run that has gone back had written."""
        if not writes():
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        for path in self._folder.glob("*.safetensors"):
            if _step_of(path) > run.step:
                path.unlink()

    def step(self, run: Run) -> None:
        """Write a snapshot if it is due."""
        every = max(run.config.steps // run.config.ema_snapshots, 1)
        due = run.finished or run.step % every == 0
        if due and not bool(run._state.halted):
            path = self._folder / f"{run.step:09d}.safetensors"
            lengths = run.config.ema_lengths
            averages = [run._state.averages[power_name(length)] for length in lengths]
            # All processes take part in the gathering, and one writes.
            averages = on_one_device(averages)
            if writes():
                save_snapshot(path, averages, lengths, int(run._state.updates))


def save_snapshot(
    path: Path, averages: Sequence[Any], lengths: Sequence[float], updates: int
) -> None:
    """Write averages of some lengths after so many updates into one file, atomically."""
    arrays = {}
    for length, average in zip(lengths, averages, strict=True):
        for number, leaf in enumerate(jax.tree.leaves(average)):
            arrays[f"{length!r}/{number}"] = np.asarray(leaf)
    record = {"lengths": list(lengths), "updates": updates, "digest": digest(arrays)}
    metadata = {"format": FORMAT, "format_version": FORMAT_VERSION, "snapshot": json.dumps(record)}
    write_arrays(path, arrays, metadata)


def reconstruct_average(
    folder: str | Path, sigma_rel: float, like: TreeT, *, step: int | None = None
) -> TreeT:
    """The weights averaged with a relative length of your choice, as if the run had kept that average.

    - `folder`: of a run with two or more `ema_lengths`.
    - `sigma_rel`: the length, see `PowerAverage`; best within the lengths that were kept, or near them.
    - `like`: the network that was trained, or a model of it.
    - `step`: the step at which the average ends; None: the last one.

    Returns `like` with the average for its weights. Each snapshot counts by a factor found by least
    squares, so that the sum of their weightings of the past is nearest to the one asked for.

    **Raises:** `FileNotFoundError` if there are no snapshots, or none of that step; `ValueError` if they
    are of another network, or damaged.
    """
    if isinstance(like, AbstractDiffusionModel):
        found = reconstruct_average(folder, sigma_rel, like.denoiser.backbone, step=step)
        return eqx.tree_at(lambda model: model.denoiser.backbone, like, found)
    paths = sorted((Path(folder) / AVERAGES).glob("*.safetensors"), key=_step_of)
    paths = [path for path in paths if step is None or _step_of(path) <= step]
    if not paths or (step is not None and _step_of(paths[-1]) != step):
        raise FileNotFoundError(
            f"{folder} has no snapshot of averages{'' if step is None else f' of step {step}'}; they are "
            "written by a run with two ema_lengths, such as ema_lengths=(0.05, 0.1)"
        )
    snapshots = [_read(path) for path in paths]
    last = snapshots[-1][0]["updates"]
    profiles = [
        (gamma_of(length), record["updates"])
        for record, _ in snapshots
        for length in record["lengths"]
    ]
    factors = least_squares(profiles, (gamma_of(sigma_rel), last))
    parameters, rest = eqx.partition(like, trainable(like))
    leaves, structure = jax.tree.flatten(parameters)
    sums = [np.zeros(leaf.shape, np.float64) for leaf in leaves]
    remaining = iter(factors)
    for record, arrays in snapshots:
        if len(arrays) != len(leaves) * len(record["lengths"]):
            raise ValueError(f"the snapshots in {folder} are of another network than this one")
        for length in record["lengths"]:
            factor = next(remaining)
            for number, total in enumerate(sums):
                array = arrays[f"{length!r}/{number}"]
                if array.shape != total.shape:
                    raise ValueError(
                        f"the snapshots in {folder} are of another network than this one"
                    )
                total += factor * array
    found = [jnp.asarray(total, leaf.dtype) for total, leaf in zip(sums, leaves, strict=True)]
    return eqx.combine(jax.tree.unflatten(structure, found), rest)


def least_squares(
    profiles: Sequence[tuple[float, int]], wanted: tuple[float, int]
) -> Float[np.ndarray, " profiles"]:
    """Factors of profiles whose sum is nearest to the one that is wanted.

    A profile (gamma, t) weighs the past tau by (gamma + 1)·tau^gamma/t^(gamma + 1) up to t, and not later.
    """
    gammas, ends = (np.asarray(column, np.float64) for column in zip(*profiles, strict=True))
    matrix = _inner(gammas[:, None], ends[:, None], gammas[None], ends[None])
    target = _inner(gammas, ends, np.float64(wanted[0]), np.float64(wanted[1]))
    return np.linalg.lstsq(matrix, target, rcond=None)[0]


def _inner(gamma: Any, end: Any, other: Any, other_end: Any) -> Any:
    """The integral of the product of two profiles (Karras et al. 2024, eq. 144), by logarithms."""
    shorter = np.minimum(end, other_end)
    log = (
        (gamma + other + 1) * np.log(shorter)
        - (gamma + 1) * np.log(end)
        - (other + 1) * np.log(other_end)
    )
    return (gamma + 1) * (other + 1) / (gamma + other + 1) * np.exp(log)


def _read(path: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    metadata, arrays = read_arrays(path, FORMAT, FORMAT_VERSION)
    record = json.loads(metadata["snapshot"])
    if digest(arrays) != record["digest"]:
        raise ValueError(
            f"{path} is damaged: its contents are not those that were written; delete it"
        )
    return record, arrays


def _step_of(path: Path) -> int:
    match = _NAME.fullmatch(path.name)
    return int(match.group(1)) if match else -1
