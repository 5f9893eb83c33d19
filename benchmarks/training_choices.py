"""Every sensible choice of prediction, weight and times on digits: class accuracy and Fréchet distance.

    python -m benchmarks.training_choices [--out FOLDER]

Each combination trains one small class-conditional network on scikit-learn's digits (8x8), from the same
weights and for the same number of steps, and draws the same 500 classes from the same noise, by the second
order of DPM-Solver++ in 20 steps without guidance. A classifier judges that has seen other digits. Prints
two tables and writes training_choices.json: predictions against weights at uniform times, and predictions
against times at the default weight of each.
"""

import dataclasses
import json
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import tyro
from rich.console import Console
from rich.table import Table

import diffusion_eqx as dx
from benchmarks.digits_samplers import halves

PREDICTIONS = ("epsilon", "sample", "v_prediction", "score", "velocity", "edm")
WEIGHTS = (
    "uniform",
    "snr",
    "min_snr",
    "soft_min_snr",
    "edm",
    "sigmoid",
    "p2",
    "debiased",
    "learned",
)
TIMES = ("uniform", "logit_normal", "mode", "log_normal", "cosine", "shifted", "loss_aware")
# The schedule that a prediction is usually learned on; cosine for the others.
SCHEDULES = {"velocity": "flow", "edm": "edm"}
# Times that are defined on the schedule "flow" only.
OF_FLOW = ("logit_normal", "mode")
COUNT = 500


@dataclasses.dataclass(frozen=True)
class Options:
    """Train with every choice, and judge."""

    out: Path = Path("benchmarks/results")
    """Folder of the tables."""
    steps: int = 1500
    """Training steps of each."""
    epochs: int = 60
    """Of the classifier's training."""
    only: tuple[str, ...] = ()
    """Predictions to try, if not all."""
    smoke: bool = False
    """One combination, a few steps: whether the benchmark runs at all."""


def main() -> None:
    """Run the benchmark."""
    options = tyro.cli(Options, description=__doc__)
    if options.smoke:
        options = dataclasses.replace(options, steps=2, epochs=2, only=PREDICTIONS[:1])
    data = dx.data.digits()
    seen, unseen = halves(data)
    assert unseen.labels is not None
    judge = dx.evaluation.train_classifier(
        seen, epochs=options.epochs, batch_size=64, key=jax.random.key(1)
    )
    reference, _ = dx.evaluation.judge(judge, data.images)
    features, classes = dx.evaluation.judge(judge, unseen.images[:COUNT])
    real = {
        "accuracy": float(np.mean(classes == unseen.labels[:COUNT])),
        "distance": dx.evaluation.frechet_distance(features, reference),
    }
    rows: dict[str, dict[str, float]] = {"real, unseen by the judge": real}
    labels = np.arange(COUNT) % 10
    for prediction in options.only or PREDICTIONS:
        for weight, times in choices(prediction)[: 1 if options.smoke else None]:
            images = drawn(data, prediction, training(options.steps, weight, times), labels)
            features, classes = dx.evaluation.judge(judge, images)
            name = f"{prediction} {weight or 'default'} {times}"
            rows[name] = {
                "accuracy": float(np.mean(classes == labels)),
                "distance": dx.evaluation.frechet_distance(features, reference),
            }
            print(name, {k: round(v, 3) for k, v in rows[name].items()}, flush=True)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "training_choices.json").write_text(json.dumps(rows, indent=1))
    show(rows)


def choices(prediction: str) -> list[tuple[str | None, str]]:
    """The weights and times that are tried with a prediction; None is its default weight."""
    flow = SCHEDULES.get(prediction) == "flow"
    times = [name for name in TIMES if flow or name not in OF_FLOW]
    return [*((name, "uniform") for name in WEIGHTS), *((None, name) for name in times)]


def training(steps: int, weight: str | None, times: str) -> dx.config.TrainingConfig:
    """How one combination is trained."""
    learned = weight == "learned"
    named = {} if learned or weight is None else {"loss_weighting": weight}
    usual = times in ("shifted", "loss_aware")
    return dx.config.TrainingConfig(
        steps=steps,
        batch_size=128,
        learning_rate=2e-3,
        learned_uncertainty=learned,
        timestep_sampling="uniform" if usual else times,  # pyright: ignore[reportArgumentType]
        timestep_shift=0.5 if times == "shifted" else 1.0,
        loss_aware_times=times == "loss_aware",
        log_every=steps,
        **named,  # pyright: ignore[reportArgumentType]
    )


def drawn(
    data: dx.data.ImageDataset,
    prediction: str,
    training: dx.config.TrainingConfig,
    labels: np.ndarray,
) -> np.ndarray:
    """Images of the classes by a network that is trained so."""
    config = dx.config.DDIMConfig(
        name="digits",
        input_shape=data.shape,
        noise_schedule=dx.config.NoiseScheduleConfig(
            schedule_type=SCHEDULES.get(prediction, "cosine")  # pyright: ignore[reportArgumentType]
        ),
        prediction_type=prediction,  # pyright: ignore[reportArgumentType]
    )
    network = dx.nn.MLP(64, width=256, depth=4, num_classes=10, key=jax.random.key(0))
    denoiser = dx.Denoiser(
        network,
        dx.models.build_schedule(config.noise_schedule),
        dx.parameterizations.build_parameterization(prediction, data_std=config.data_std),
        null=10,
    )
    pixels = dx.data.to_unit_range(data.images).reshape(len(data), 64)
    recipe = dx.training.make_recipe(training, dx.losses.training_loss(denoiser, config, training))
    state, _ = dx.training.fit(network, dx.data.ArrayDataset(pixels, data.labels), recipe, training)
    trained = eqx.tree_at(lambda d: d.backbone, denoiser, dx.training.averaged(state))
    images = dx.sample(
        trained,
        dx.samplers.SAMPLERS["dpm++2m"],
        (64,),
        count=len(labels),
        steps=20,
        key=jax.random.key(7),
        cond=jnp.asarray(labels),
    )
    return np.clip(np.asarray(images), -1.0, 1.0).reshape(-1, *data.shape)


def show(rows: dict[str, dict[str, float]]) -> None:
    """Print both tables."""
    console = Console(width=150)
    real = rows["real, unseen by the judge"]
    console.print(f"real digits: {real['accuracy']:.1%} / {real['distance']:.2f}")
    predictions = list(dict.fromkeys(name.split()[0] for name in list(rows)[1:]))
    for title, columns in (
        ("weight", [f"{weight} uniform" for weight in WEIGHTS]),
        ("times", [f"default {times}" for times in TIMES]),
    ):
        table = Table(title, *predictions)
        for column in columns:
            cells = (rows.get(f"{prediction} {column}") for prediction in predictions)
            name = column.split()[0 if title == "weight" else 1]
            table.add_row(name, *(cell(found) for found in cells))
        console.print(table)


def cell(found: dict[str, float] | None) -> str:
    """One entry of a table."""
    return "–" if found is None else f"{found['accuracy']:.1%} / {found['distance']:.2f}"


if __name__ == "__main__":
    main()
