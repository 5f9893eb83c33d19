"""What the file of a trained model says of its training."""

import dataclasses
from typing import Any

from diffusion_eqx.config import TrainingConfig
from diffusion_eqx.data import Dataset


def training_record(
    data: Dataset, config: TrainingConfig, rows: list[dict[str, float]]
) -> dict[str, Any]:
    """The `record` for `save_model` of averaged weights.

    - `data`, `config`: on which, and how, the model was trained.
    - `rows`: the reports of the training, as `fit` gives them.
    """
    training = {
        "class_names": list(data.class_names),
        "images": len(data),
        # None if a callback stopped the run before its first report.
        "final_loss": rows[-1].get("loss") if rows else None,
        **dataclasses.asdict(config),
    }
    return {"ema": True, "training": training}
