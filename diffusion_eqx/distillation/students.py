"""A student of a model in one line."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import jax

from diffusion_eqx.config import SamplerConfig, TrainingConfig
from diffusion_eqx.data import Dataset
from diffusion_eqx.denoiser import AbstractDenoiser, Denoiser
from diffusion_eqx.distillation.consistency import train_consistency
from diffusion_eqx.distillation.progressive import distill_progressively
from diffusion_eqx.models import AbstractDiffusionModel, save_model, with_network, with_sampler
from diffusion_eqx.training import Callback, Run, check_data, training_record, what_is_denoised

ModelT = TypeVar("ModelT", bound=AbstractDiffusionModel)

METHODS = ("progressive", "consistency", "consistency_training")

_STAGES: dict[str, tuple[int, ...]] = {
    "progressive": (8, 4, 2, 1),
    "consistency": (8, 16, 32, 64),
    "consistency_training": (8, 16, 32, 64),
}
# A consistency model draws in any few steps; two are far better than one.
_CONSISTENCY_STEPS = 2


def distill(
    model: ModelT,
    data: Dataset,
    config: TrainingConfig,
    *,
    method: str = "progressive",
    stages: Sequence[int] | None = None,
    guidance: float | None = None,
    out: str | Path | None = None,
    callbacks: Iterable[Callback] = (),
    overwrite: bool = False,
) -> ModelT:
    """Train a student of few steps that begins with a model's weights, and give it back as a model.

    - `progressive`: two steps of the teacher become one, stage by stage (Salimans & Ho 2022). It is drawn
      by DDIM in as many steps as the last stage has.
    - `consistency`: the student learns the end of its teacher's trajectory (Song et al. 2023, algorithm 2).
      It is drawn by `ConsistencySampler` in 1 to 4 steps.
    - `consistency_training`: it learns the same from the data, without a teacher (algorithm 3).

    **Arguments:**

    - `model`: the teacher, which stays as it is. Of a latent one the latents are learnt.
    - `data`: images of the model's shape, with labels if the model has classes.
    - `config`: of each stage; what it says of noise levels, labels and held-out examples does not matter.
    - `stages`: numbers of steps: for `progressive` each half of the one before, else ever finer grids.
    - `guidance`: scale of the model's own guidance, which is learnt too; None: none.
    - `out`: the folder, or None. It receives a run for each stage, and last `model.safetensors`. The same
      call again continues.
    - `callbacks`: of each stage. One that stops a stage ends it there, and the next one begins.
    - `overwrite`: delete the runs that are in `out`, and start anew.

    Returns the student, which recommends how it is drawn.

    **Raises:** `DataMismatch` if the data do not fit; `ValueError` for an unknown method, for `guidance`
    without a teacher, and as `distill_progressively` and `train_consistency`.
    """
    if method not in METHODS:
        raise ValueError(f"method must be one of {', '.join(METHODS)}; got {method!r}")
    if method == "consistency_training" and guidance is not None:
        raise ValueError(
            "consistency_training has no teacher that could be guided: leave out guidance"
        )
    check_data(model, data)
    stages = tuple(_STAGES[method] if stages is None else stages)
    folder = None if out is None else Path(out)
    examples = what_is_denoised(model, data, folder)
    # What every stage has in common, whatever the method.
    given = {"config": config, "stages": stages, "callbacks": tuple(callbacks)}
    given["runs"] = _runs(folder, model, method, guidance, overwrite)
    teacher = model.plan(guidance=guidance).denoiser
    student, steps = _last(model.denoiser, teacher, examples, method, given)
    name = "ddim" if method == "progressive" else "consistency"
    finished = with_sampler(
        with_network(model, student.backbone), SamplerConfig(name=name, steps=steps)
    )
    if folder is not None and jax.process_index() == 0:
        record = training_record(data, config, [])
        record["training"] |= {"method": method, "stages": list(stages), "guidance": guidance}
        save_model(folder / "model.safetensors", finished, record=record)
    return finished


def _last(
    start: Denoiser, teacher: AbstractDenoiser, data: Dataset, method: str, given: dict[str, Any]
) -> tuple[Denoiser, int]:
    """The student of the last stage, and the number of steps in which it is drawn."""
    if method == "progressive":
        *_, (steps, student) = distill_progressively(teacher, start, data, **given)
        return student, steps
    guide = teacher if method == "consistency" else None
    return train_consistency(start, data, teacher=guide, **given), _CONSISTENCY_STEPS


def _runs(
    folder: Path | None, model: Any, method: str, guidance: float | None, overwrite: bool
) -> Callable[[int], Run] | None:
    if folder is None:
        return None
    settings = {"method": method, "guidance": guidance}

    def run(steps: int) -> Run:
        return Run(
            folder / f"stage-{steps}",
            settings={**settings, "stage": steps},
            assemble=lambda network: with_network(model, network),
            overwrite=overwrite,
        )

    return run
