"""Train on the workers of a Ray cluster: python examples/launch/ray_train.py --out /shared/run --workers 4

Ray starts the processes and lets jax know of the others before `work` is called, so that there is nothing
to join. The folder of the run must be one that all workers see; a call that is made again goes on there.
"""

import argparse
from typing import Any


def work(options: dict[str, Any]) -> None:
    """What each worker does."""
    import jax

    import diffusion_eqx as dx

    data = dx.data.digits()
    model = dx.models.DDIMModel(dx.config.DDIMConfig.for_data(data), key=jax.random.key(0))
    training = dx.config.TrainingConfig(steps=options["steps"], batch_size=options["batch_size"])
    dx.train(model, data, training, out=options["out"])


def main(arguments: list[str] | None = None) -> None:
    """Start the workers and wait for them."""
    from ray.train import RunConfig, ScalingConfig  # pyright: ignore[reportMissingImports]
    from ray.train.v2.jax import JaxTrainer  # pyright: ignore[reportMissingImports]

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", required=True, help="folder of the run, which all workers see")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--batch-size", type=int, default=64)
    options = parser.parse_args(arguments)
    trainer = JaxTrainer(
        work,
        train_loop_config=vars(options),
        scaling_config=ScalingConfig(num_workers=options.workers, use_gpu=True),
        run_config=RunConfig(name="diffusion", storage_path=options.out),
    )
    trainer.fit()


if __name__ == "__main__":
    main()
