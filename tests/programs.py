"""One stored program of an artifact, run by jax's own client for CPUs."""

from typing import Any

import numpy as np
from diffusion_eqx_export import Artifact, StoredProgram, pinned


def run_program(
    artifact: Artifact, name: str, *, batch: int, given: dict[str, Any], state: Any = None
) -> dict[str, np.ndarray]:
    """The arrays that `init`, `step` or `finish` returns, by name."""
    entry = next(
        e for e in artifact.manifest["programs"] if (e["platform"], e["batch"]) == ("cpu", batch)
    )
    with pinned():
        results = StoredProgram(artifact, entry[name])(given, state or {})
    return {name: np.asarray(array) for name, array in results.items()}
