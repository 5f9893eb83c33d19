"""The numbers of samplers and guidance as command line options, by their names in Python."""

import itertools


def read_numbers(arguments: list[str]) -> dict[str, float]:
    """The numbers among arguments that no other option took, such as `--guidance-scale 3` or `--eta=0.5`.

    Which of them a sampler has is for the sampler to say.

    **Raises:** `ValueError` for what is no option with a number.
    """
    words = [word for argument in arguments for word in argument.split("=", 1)]
    found: dict[str, float] = {}
    for name, value in itertools.zip_longest(words[::2], words[1::2]):
        if not name.startswith("--"):
            raise ValueError(f"{name!r} is no option here; see --help")
        if value is None:
            raise ValueError(f"{name} is no option here, or lacks its value; see --help")
        try:
            found[name[2:].replace("-", "_")] = float(value)
        except ValueError:
            raise ValueError(
                f"{name} is no option here, or needs a number; got {value!r}. See --help"
            ) from None
    return found
