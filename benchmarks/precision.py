"""What drawing in bfloat16 costs in quality: one model in both precisions, judged by one classifier."""

import dataclasses
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import tyro

import diffusion_eqx as dx


@dataclasses.dataclass(frozen=True)
class Options:
    """Draw with the demo's model in float32 and in bfloat16, and judge the images."""

    model: Path = Path("demo/model.safetensors")
    """The model that `make demo` trains."""
    out: Path = Path("benchmarks/results/precision")
    """Folder for results.json and the pictures."""
    samples: int = 500
    """Images of each precision."""
    steps: int = 10
    """Steps of the recommended sampler."""
    guidance: float = 2.0
    """Scale of classifier-free guidance."""
    epochs: int = 8
    """How often the judge sees each real image while it learns."""


def main() -> None:
    """Run the comparison."""
    dx.use_all_cores()
    options = tyro.cli(Options, description=__doc__)
    train, test = dx.data.fashion_mnist("train"), dx.data.fashion_mnist("test")
    model = dx.load_model(options.model)
    judge = dx.evaluation.train_classifier(train, epochs=options.epochs, key=jax.random.key(1))
    reference, _ = dx.evaluation.judge(judge, test.images)
    labels = np.arange(options.samples) % (model.num_classes or 1)
    options.out.mkdir(parents=True, exist_ok=True)
    results = {}
    for name, drawing in (("float32", model), ("bfloat16", dx.cast(model, jnp.bfloat16))):
        batches = drawing.sample_batches(
            options.samples,
            "unipc",
            steps=options.steps,
            labels=labels,
            guidance=options.guidance,
            key=jax.random.key(0),
        )
        images = np.concatenate(list(batches))
        features, classes = dx.evaluation.judge(judge, images)
        results[name] = {
            "accuracy": float(np.mean(classes == labels)),
            "distance": float(dx.evaluation.frechet_distance(features, reference)),
        }
        dx.save_picture(options.out / f"{name}.png", images[:80], columns=10, zoom=2)
        print(f"{name}: {results[name]['accuracy']:.1%}, {results[name]['distance']:.2f}")
    (options.out / "results.json").write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
