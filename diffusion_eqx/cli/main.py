"""The command `diffusion-eqx`."""

import sys
from typing import Annotated

import tyro

from diffusion_eqx.cli import info, sample, samplers, train, train_classifier

_COMMANDS = {
    train.Train: train.run,
    train_classifier.TrainClassifier: train_classifier.run,
    sample.Sample: sample.run,
    samplers.Samplers: samplers.run,
    info.Info: info.run,
}


def main(args: list[str] | None = None) -> None:
    """Run one command. Exits with 2 for wrong input, 1 for a failed run, 130 if interrupted."""
    options = tyro.cli(
        Annotated[train.Train, tyro.conf.subcommand("train")]
        | Annotated[train_classifier.TrainClassifier, tyro.conf.subcommand("train-classifier")]
        | Annotated[sample.Sample, tyro.conf.subcommand("sample")]
        | Annotated[samplers.Samplers, tyro.conf.subcommand("samplers")]
        | Annotated[info.Info, tyro.conf.subcommand("info")],
        prog="diffusion-eqx",
        description="Diffusion models in Equinox: train, sample, inspect.",
        args=args,
    )
    try:
        _COMMANDS[type(options)](options)
    except (ValueError, OSError) as error:
        print(f"diffusion-eqx: {error}", file=sys.stderr)
        sys.exit(2)
    except ArithmeticError as error:
        print(f"diffusion-eqx: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt as interrupt:
        print(f"diffusion-eqx: interrupted; {interrupt}", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
