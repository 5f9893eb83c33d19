"""The command `diffusion-eqx`."""

import importlib.metadata
import sys
from typing import Annotated, Any

import tyro

from diffusion_eqx.cli import (
    evaluate,
    info,
    sample,
    samplers,
    train,
    train_classifier,
    train_student,
)
from diffusion_eqx.cli.errors import explained
from diffusion_eqx.cli.number_options import read_numbers
from diffusion_eqx.cli.parsing import parsed
from diffusion_eqx.cli.train_arguments import TrainArguments
from diffusion_eqx.cli.unknown import unknown_option

# Commands that draw take the numbers of samplers and guidance too.
_DRAWING = {sample.Sample: sample.run, evaluate.Evaluate: evaluate.run}
_COMMANDS = {
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
        if given[:1] == ["train"]:
            _train(TrainArguments.of(list(given[1:])))
            return
        options, others = _parsed(list(given))
        if type(options) in _DRAWING:
            _DRAWING[type(options)](options, read_numbers(others))
        elif others:
            raise unknown_option(others[0], options)
        else:
            _COMMANDS[type(options)](options)
    except (ValueError, OSError) as error:
        print(f"diffusion-eqx: {explained(error)}", file=sys.stderr)
        sys.exit(2)
    except ArithmeticError as error:
        print(f"diffusion-eqx: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt as interrupt:
        text = "; ".join(filter(None, ["interrupted", str(interrupt)]))
        print(f"diffusion-eqx: {text}", file=sys.stderr)
        sys.exit(130)


def _parsed(
    given: list[str], command: type[Any] = train.Train, **default: Any
) -> tuple[Any, list[str]]:
    """The options of one command, and the arguments that are none of them.

    - `command`, `default`: of `train`, its options and what they are unless told otherwise.
    """
    return parsed(
        _named("train", command, **default)
        | _named("train-classifier", train_classifier.TrainClassifier)
        | _named("sample", sample.Sample)
        | _named("evaluate", evaluate.Evaluate)
        | _named("samplers", samplers.Samplers)
        | _named("info", info.Info),
        prog="diffusion-eqx",
        description="Diffusion models in Equinox: train, sample, evaluate; --version for its release.",
        args=given,
    )


def _train(arguments: TrainArguments) -> None:
    """Train: first all but the options of the model are read, and once the data are known, those too."""

    def read(model: Any = None) -> Any:
        command, default = arguments.command(model)
        options, others = _parsed(["train", *arguments.rest], command, **default)
        # Students have the configuration of their teacher, and no options of it.
        later = model is None and isinstance(options, train.Train)
        others = arguments.left(others) if later else others
        if others:
            raise unknown_option(others[0], options)
        return options

    options = read()
    if isinstance(options, train_student.TrainStudent):
        train_student.run(options)
    else:
        train.run(options, arguments.shape, read)


def _named(name: str, command: Any, **options: Any) -> Any:
    """A command under its name; `options` may have the `default` of its options."""
    return Annotated[command, tyro.conf.subcommand(name, **options)]


if __name__ == "__main__":
    main()
