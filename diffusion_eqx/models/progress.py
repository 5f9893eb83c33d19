"""A bar for drawing many images."""

from collections.abc import Iterator

import numpy as np


def counted(batches: Iterator[np.ndarray], *, total: int, show: bool) -> Iterator[np.ndarray]:
    """The batches, with a bar that counts their images if `show` and standard error is a terminal."""
    if not show:
        yield from batches
        return
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    with Progress(console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task("drawing", total=total)
        for batch in batches:
            progress.advance(task, len(batch))
            yield batch
