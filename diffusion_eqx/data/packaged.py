"""Where Debian's packages put what they hold."""

import sys
from pathlib import Path


def find_packaged(file: str, *, what: str, package: str, remedy: str) -> Path:
    """The path of a package's `file`, which has no leading slash.

    Searched for on the machine, and where set-up without rights unpacks packages beside the interpreter.

    **Raises:** `FileNotFoundError` that says what was searched where, to install `package`, or `remedy`.
    """
    places = [Path("/") / file, Path(sys.prefix) / "debian" / file]
    for place in places:
        if place.exists():
            return place
    raise FileNotFoundError(
        f"{what} was not found as {' or '.join(map(str, places))}; install Debian's package {package} "
        f"(apt-get install {package}), or give {remedy}"
    )
