"""Any sampler of diffusion_eqx as one file that a native program runs. The file is FORMAT.md's.

Each name is loaded when it is first used.
"""

import importlib
from typing import TYPE_CHECKING, Any

_NAMES = {
    "Artifact": "artifact",
    "ArtifactError": "errors",
    "Lowered": "lowering",
    "NoCPUBackend": "errors",
    "NotExportable": "errors",
    "Verdict": "verification",
    "export_sampler": "export",
    "lower": "lowering",
    "pinned": "settings",
    "read_artifact": "artifact",
    "verify": "verification",
}

if TYPE_CHECKING:
    from diffusion_eqx_export.artifact import Artifact as Artifact
    from diffusion_eqx_export.artifact import read_artifact as read_artifact
    from diffusion_eqx_export.errors import ArtifactError as ArtifactError
    from diffusion_eqx_export.errors import NoCPUBackend as NoCPUBackend
    from diffusion_eqx_export.errors import NotExportable as NotExportable
    from diffusion_eqx_export.export import export_sampler as export_sampler
    from diffusion_eqx_export.lowering import Lowered as Lowered
    from diffusion_eqx_export.lowering import lower as lower
    from diffusion_eqx_export.settings import pinned as pinned
    from diffusion_eqx_export.verification import Verdict as Verdict
    from diffusion_eqx_export.verification import verify as verify


def __getattr__(name: str) -> Any:
    if name in _NAMES:
        return getattr(importlib.import_module(f"diffusion_eqx_export.{_NAMES[name]}"), name)
    raise AttributeError(f"diffusion_eqx_export has no {name!r}; it has {', '.join(__dir__())}")


def __dir__() -> list[str]:
    return sorted(_NAMES)
