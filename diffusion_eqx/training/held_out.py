"""The loss on examples that are not trained on: at fixed noise levels, with fixed noise.

The training loss is an average over random levels by a weight of choice, so that runs of different weights
cannot be compared by it, and its noise hides progress. Here neither plays a role.
"""

import hashlib
import json
import math
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from diffusion_eqx._typing import Batch, Cond, PRNGKey
from diffusion_eqx.data import ArrayDataset, ImageDataset, ImagesInMemory, to_unit_range
from diffusion_eqx.denoiser import AbstractDenoiser
from diffusion_eqx.models import LDMModel
from diffusion_eqx.random_keys import EVAL, role
from diffusion_eqx.training.autoencoder import encode_dataset
from diffusion_eqx.training.callback import Callback
from diffusion_eqx.training.devices import writes
from diffusion_eqx.training.folder import HELD_OUT
from diffusion_eqx.training.run import Run

_LEAST, _GREATEST, _BINS = -10.0, 10.0, 16
_WIDTH = (_GREATEST - _LEAST) / _BINS
# The centres of the bins, in log-SNR.
CENTRES: tuple[float, ...] = tuple(_LEAST + _WIDTH * (bin + 0.5) for bin in range(_BINS))


def held_out_loss(
    denoiser: AbstractDenoiser,
    examples: Any,
    cond: Cond = None,
    *,
    key: PRNGKey,
    batch_size: int = 250,
) -> dict[str, Any]:
    """How well a denoiser predicts clean examples at each of 16 log-SNRs from −10 to 10.

    - `examples`: (N, …), uint8 or in [−1, 1].
    - `cond`: the condition of each, or None.
    - `key`: of the noise; example i has the same noise at each call.

    Returns

    - `bins`: (1 + snr)·mean squared error of x0 at each of `CENTRES`, None where the schedule has no such
      level. It is about 1 for a network that knows nothing, whatever it predicts.
    - `total`: the integral ½∫ snr·mse d(log snr) over those bins. This is the part of the bound on
      −log p(x), in nats per entry, that depends on the network (Kingma et al. 2021, eq. 15).
    """
    schedule = denoiser.schedule
    ends = schedule.at(jnp.asarray([1.0 / schedule.num_timesteps, 1.0])).log_snr
    cleanest, noisiest = (float(end) for end in ends)
    inside = [noisiest <= centre <= cleanest for centre in CENTRES]
    root = role(key, EVAL)
    sums = np.zeros(_BINS)
    for begin in range(0, len(examples), batch_size):
        rows = slice(begin, begin + batch_size)
        x0 = to_unit_range(jnp.asarray(examples[rows]))
        part = jax.tree.map(lambda c, rows=rows: jnp.asarray(c[rows]), cond)
        numbers = jnp.arange(begin, begin + len(x0), dtype=jnp.int32)
        sums += np.asarray(_errors(denoiser, x0, part, numbers, root), np.float64)
    mse = sums / len(examples)
    snr = np.exp(CENTRES)
    bins = [
        float((1.0 + s) * error) if there else None
        for s, error, there in zip(snr, mse, inside, strict=True)
    ]
    total = 0.5 * _WIDTH * float(np.sum(np.where(inside, snr * mse, 0.0)))
    return {"total": total, "bins": bins}


@eqx.filter_jit
def _errors(
    denoiser: AbstractDenoiser, x0: Batch, cond: Cond, numbers: Array, root: PRNGKey
) -> Float[Array, " bins"]:
    """The sum over examples of the mean squared error of x0, at each centre."""

    def at(_: None, centre: tuple[Array, Array]) -> tuple[None, Array]:
        log_snr, bin = centre
        keys = jax.vmap(lambda n: jax.random.fold_in(jax.random.fold_in(root, n), bin))(numbers)
        eps = jax.vmap(lambda one: jax.random.normal(one, x0.shape[1:], x0.dtype))(keys)
        level = denoiser.schedule.at_log_snr(log_snr)
        found = denoiser(level.noised(x0, eps), level, cond).x0
        return None, jnp.sum(jnp.mean((found - x0) ** 2, axis=range(1, x0.ndim)))

    centres = jnp.asarray(CENTRES), jnp.arange(_BINS, dtype=jnp.int32)
    return jax.lax.scan(at, None, centres)[1]


class HeldOut(Callback):
    """Adds `held_out`, the loss on other examples, to the reports of a run, and writes it by noise level.

    It is that of the averaged weights. Each line of the run's `held_out.jsonl` has `step`, `total` and
    `bins`, as `held_out_loss` says.

    - `data`: the examples, which must not be among those of the training; see `split_held_out`.
    - `every`: reports between two measurements; the last step has one anyway.
    - `limit`: at most so many examples are looked at.
    """

    optional = True

    def __init__(self, data: ImagesInMemory, *, every: int = 1, limit: int = 1000):
        self._data = data
        self._every = every
        self._limit = limit
        self._examples: np.ndarray | None = None

    def start(self, run: Run) -> None:
        """Drop what was measured after the step from which the run goes on."""
        path = _file(run)
        if path is not None and path.exists() and writes():
            lines = path.read_text().splitlines()
            kept = [line for line in lines if json.loads(line)["step"] <= run.step]
            path.write_text("".join(line + "\n" for line in kept))

    def evaluate(self, run: Run, row: dict[str, float]) -> dict[str, float] | None:
        """Measure, if it is due."""
        if not (run.finished or len(run.rows) % self._every == 0):
            return None
        model = run.model()
        labels = self._data.labels
        if self._examples is None:
            self._examples = self._data.images[: self._limit]
            if isinstance(model, LDMModel):
                # Once: the autoencoder stays as it is while its model is trained.
                self._examples = encode_dataset(model, ImageDataset(self._examples)).examples
        cond = None if labels is None else np.asarray(labels[: self._limit], np.int32)
        denoiser = eqx.nn.inference_mode(getattr(model, "denoiser", model))
        found = held_out_loss(denoiser, self._examples, cond, key=run.key("held out"))
        if not math.isfinite(found["total"]):
            raise ArithmeticError("the loss on held-out examples is not finite")
        path = _file(run)
        if path is not None and writes():
            with open(path, "a") as file:
                print(json.dumps({"step": run.step, **found}), file=file)
        return {"held_out": found["total"]}


def split_held_out(data: Any, share: float) -> tuple[Any, Any]:
    """A data set in two: most of it to train on, and about a `share` to be held out.

    Each example's own content decides, so that equal examples are on one side, and more data move none.

    - `data`: an `ImageDataset`, `ArrayDataset` or another that holds all its examples in memory.

    **Raises:** `ValueError` unless both parts have examples; `TypeError` for data that are not in memory.
    """
    arrays = getattr(data, "images", getattr(data, "examples", None))
    if arrays is None:
        raise TypeError(
            f"only data in memory can be split, and a {type(data).__name__} has no `images`; hold out a "
            "data set of its own, by HeldOut(data)"
        )
    limit = int(share * 2**64)
    held = np.asarray([_number(example) < limit for example in arrays])
    if not 0 < held.sum() < len(held):
        raise ValueError(
            f"a share of {share} of {len(held)} examples holds out {held.sum()}; both parts must have some"
        )

    def part(rows: np.ndarray) -> Any:
        labels = None if data.labels is None else data.labels[rows]
        kind = ArrayDataset if hasattr(data, "examples") else ImageDataset
        return kind(arrays[rows], labels, data.class_names)

    return part(~held), part(held)


def _number(example: np.ndarray) -> int:
    """64 bits of an example's digest."""
    content = np.ascontiguousarray(example).tobytes()
    return int.from_bytes(hashlib.sha256(content).digest()[:8], "little")


def _file(run: Run) -> Path | None:
    return None if run.folder is None else run.folder / HELD_OUT
