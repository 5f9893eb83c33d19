"""The command `diffusion-eqx`."""

import importlib.metadata
import sys
from typing import Annotated

import tyro

from diffusion_eqx.cli import evaluate, info, sample, samplers, train, train_classifier
from diffusion_eqx.cli.errors import explained
from diffusion_eqx.cli.number_options import read_numbers

# Commands that draw take the numbers of samplers and guidance too.
_DRAWING = {sample.Sample: sample.run, evaluate.Evaluate: evaluate.run}
_COMMANDS = {
    train.Train: train.run,
    train_classifier.TrainClassifier: train_classifier.run,
    samplers.Samplers: samplers.run,
    info.Info: info.run,
}


def main(args: list[str] | None = None) -> None:
    """Run one command. Exits with 2 for wrong input, 1 for a failed run, 130 if interrupted."""
    given = sys.argv[1:] if args is None else args
    if given[:1] == ["--version"]:
        print(importlib.metadata.version("diffusion-eqx"))
        return
    try:
        options, others = tyro.cli(
            Annotated[train.Train, tyro.conf.subcommand("train")]
            | Annotated[train_classifier.TrainClassifier, tyro.conf.subcommand("train-classifier")]
            | Annotated[sample.Sample, tyro.conf.subcommand("sample")]
            | Annotated[evaluate.Evaluate, tyro.conf.subcommand("evaluate")]
            | Annotated[samplers.Samplers, tyro.conf.subcommand("samplers")]
            | Annotated[info.Info, tyro.conf.subcommand("info")],
            prog="diffusion-eqx",
            description="Diffusion models in Equinox: train, sample, evaluate; --version for its release.",
            args=given,
            return_unknown_args=True,
        )
        if type(options) in _DRAWING:
            _DRAWING[type(options)](options, read_numbers(others))
        elif others:
            raise ValueError(f"{others[0]!r} is no option here; see --help")
        else:
            _COMMANDS[type(options)](options)
    except (ValueError, OSError) as error:
        print(f"diffusion-eqx: {explained(error)}", file=sys.stderr)
        sys.exit(2)
    except ArithmeticError as error:
        print(f"diffusion-eqx: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt as interrupt:
        print(f"diffusion-eqx: interrupted; {interrupt}", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
