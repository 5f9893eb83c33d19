"""Any sampler of diffusion_eqx as one file that a native program runs. The file is FORMAT.md's.

Each name is loaded when it is first used.
"""

import importlib
from typing import TYPE_CHECKING, Any

_NAMES = {
    "ALIGNMENT": "container",
    "Artifact": "artifact",
    "ArtifactError": "errors",
    "Lowered": "lowering",
    "NoCPUBackend": "errors",
    "NotExportable": "errors",
    "STABLEHLO_VERSION": "lowering",
    "StoredProgram": "verification",
    "Verdict": "verification",
    "export_sampler": "export",
    "lower": "lowering",
    "pinned": "settings",
    "portable": "lowering",
    "read_artifact": "artifact",
    "seed_key": "settings",
    "seed_words": "settings",
    "to_32_bits": "settings",
    "verify": "verification",
    "wrap_keys": "settings",
    "write_container": "container",
}

if TYPE_CHECKING:
    from diffusion_eqx_export.artifact import Artifact as Artifact
    from diffusion_eqx_export.artifact import read_artifact as read_artifact
    from diffusion_eqx_export.container import ALIGNMENT as ALIGNMENT
    from diffusion_eqx_export.container import write_container as write_container
    from diffusion_eqx_export.errors import ArtifactError as ArtifactError
    from diffusion_eqx_export.errors import NoCPUBackend as NoCPUBackend
    from diffusion_eqx_export.errors import NotExportable as NotExportable
    from diffusion_eqx_export.export import export_sampler as export_sampler
    from diffusion_eqx_export.lowering import STABLEHLO_VERSION as STABLEHLO_VERSION
    from diffusion_eqx_export.lowering import Lowered as Lowered
    from diffusion_eqx_export.lowering import lower as lower
    from diffusion_eqx_export.lowering import portable as portable
    from diffusion_eqx_export.settings import pinned as pinned
    from diffusion_eqx_export.settings import seed_key as seed_key
    from diffusion_eqx_export.settings import seed_words as seed_words
    from diffusion_eqx_export.settings import to_32_bits as to_32_bits
    from diffusion_eqx_export.settings import wrap_keys as wrap_keys
    from diffusion_eqx_export.verification import StoredProgram as StoredProgram
    from diffusion_eqx_export.verification import Verdict as Verdict
    from diffusion_eqx_export.verification import verify as verify


def __getattr__(name: str) -> Any:
    if name in _NAMES:
        return getattr(importlib.import_module(f"diffusion_eqx_export.{_NAMES[name]}"), name)
    raise AttributeError(f"diffusion_eqx_export has no {name!r}; it has {', '.join(__dir__())}")


def __dir__() -> list[str]:
    return sorted(_NAMES)
