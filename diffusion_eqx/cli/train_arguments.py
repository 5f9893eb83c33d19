"""What is given to `train`: options, and perhaps a file of them first."""

import dataclasses
from pathlib import Path
from typing import Any

from diffusion_eqx.cli.goal import STUDENTS, Goal
from diffusion_eqx.cli.option_file import ENDINGS, defaults_of, read_options
from diffusion_eqx.cli.train import default_model, train_of

_MODEL = "--model."


@dataclasses.dataclass(frozen=True)
class TrainArguments:
    """What follows `train` on the command line.

    It is read twice: without the options of the model, which say which data are wanted, and with them, over
    a model that fits the data.

    - `file`: the file of options that came first, or None.
    - `from_file`: what it says.
    - `rest`: the options.
    """

    file: Path | None
    from_file: dict[str, Any]
    rest: tuple[str, ...]

    @classmethod
    def of(cls, arguments: list[str]) -> "TrainArguments":
        """The arguments that follow `train`.

        **Raises:** `ValueError` if the file of options cannot be read; `OSError` if it is not there.
        """
        if arguments and arguments[0].endswith(ENDINGS):
            path = Path(arguments[0])
            return cls(path, read_options(path), tuple(arguments[1:]))
        return cls(None, {}, tuple(arguments))

    @property
    def kind(self) -> str:
        """What is trained."""
        said = _values(self.rest, "--kind")
        return said[0] if said else self.from_file.get("kind", "ddim")

    @property
    def shape(self) -> tuple[tuple[int, int] | None, int | None]:
        """The (height, width) and the channels that the options of the model ask for; None where they do
        not."""
        shape = self._of_model("input_shape")
        if len(shape) == 3:
            return (shape[0], shape[1]), shape[2]
        size, channels = self._of_model("img_size"), self._of_model("channels")
        return (
            (size[0], size[-1]) if size else None,
            channels[0] if channels else None,
        )

    def command(self, model: Any = None) -> tuple[type[Goal], dict[str, Any]]:
        """The class of the options, and the `default` for them where a file says some.

        - `model`: the configuration that options of the model change; None: they are left for later.

        **Raises:** `ValueError` for an unknown kind, or for options in the file that there are not.
        """
        if {"-h", "--help"} & set(self.rest):
            model = None if self.kind in STUDENTS else default_model(self.kind)
        command = train_of(self.kind, model)
        if self.file is None:
            return command, {}
        given = {**self.from_file, "kind": self.kind}
        if "out" not in given:
            if not any(word.split("=")[0] in ("--out", "-o") for word in self.rest):
                raise ValueError(
                    f"{self.file} has no `out`, the folder of the run; add it, or give --out"
                )
            given["out"] = Path()  # The command line says.
        return command, {"default": defaults_of(self.file, given, command, model)}

    def left(self, others: list[str]) -> list[str]:
        """Of the arguments that no option took, those that are none of the model's."""
        kept: list[str] = []
        of_model = False
        for word in others:
            of_model = word.startswith(_MODEL) or (of_model and not word.startswith("--"))
            if not of_model:
                kept.append(word)
        return kept

    def _of_model(self, name: str) -> tuple[int, ...]:
        """The whole numbers that an option of the model has, on the command line or else in the file."""
        said = _values(self.rest, _MODEL + name)
        if not said:
            held = self.from_file.get("model", {}).get(name, ())
            said = list(held) if isinstance(held, list | tuple) else [held]
        try:
            return tuple(int(one) for one in said)
        except (TypeError, ValueError):
            return ()  # It is refused where the configuration is made.


def _values(words: tuple[str, ...], option: str) -> list[str]:
    """What follows an option, up to the next one."""
    found: list[str] = []
    inside = False
    for word in words:
        name, _, value = word.partition("=")
        if word.startswith("-") and not word[1:2].isdigit():
            inside = name.replace("-", "_") == option.replace("-", "_")
            found = [value] if inside and value else found
        elif inside:
            found.append(word)
    return found
