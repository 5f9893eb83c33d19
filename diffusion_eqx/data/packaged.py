"""Files that Debian packages bring."""

import sys
from pathlib import Path


def find_packaged(file: str, *, what: str, package: str, remedy: str) -> Path:
    """The path of a file that a Debian package brings.

    - `file`: its path inside the package, without a leading slash.
    - `what`: what the file holds, for the message.
    - `package`: the name of the package.
    - `remedy`: what a caller may give instead.

    The file is looked for under `/`, and beside the Python interpreter, where this project's set-up unpacks
    packages for users who may not install any.

    **Raises:** `FileNotFoundError` that names the places searched, the package and the remedy.
    """
    places = [Path("/") / file, Path(sys.prefix) / "debian" / file]
    for place in places:
        if place.exists():
            return place
    raise FileNotFoundError(
        f"{what} was not found as {' or '.join(map(str, places))}; install Debian's package {package} "
        f"(apt-get install {package}), or give {remedy}"
    )
