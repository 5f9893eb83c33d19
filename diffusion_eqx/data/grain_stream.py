"""grain's data sets: by number (MapDataset) and as a stream (IterDataset)."""

import base64
import json
from collections.abc import Iterator
from typing import Any

from diffusion_eqx.data.foreign import is_of


def is_grain_map(source: Any) -> bool:
    """Whether it is a `grain.MapDataset`."""
    return is_of(source, "grain", "MapDataset")


def is_grain_stream(source: Any) -> bool:
    """Whether it is a `grain.IterDataset`."""
    return is_of(source, "grain", "IterDataset")


class GrainStream:
    """The examples of a `grain.IterDataset`, again and again."""

    def __init__(self, source: Any):
        self._source = source
        self._passes = 0
        self._iterator: Iterator[Any] = iter(source)

    def __next__(self) -> Any:
        try:
            return next(self._iterator)
        except StopIteration:
            self._passes += 1
            self._iterator = iter(self._source)
            return next(self._iterator)

    def state(self) -> dict[str, Any] | None:
        """The iterator's own state. What it has that is no JSON leaves none."""
        found = self._iterator.get_state()  # pyright: ignore[reportAttributeAccessIssue]
        if isinstance(found, bytes):
            found = {"bytes": base64.b64encode(found).decode()}
        try:
            json.dumps(found)
        except TypeError:
            return None
        return {"passes": self._passes, "source": found}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a state."""
        self._passes, found = int(state["passes"]), state["source"]
        if set(found) == {"bytes"}:
            found = base64.b64decode(found["bytes"])
        self._iterator = iter(self._source)
        self._iterator.set_state(found)  # pyright: ignore[reportAttributeAccessIssue]
