"""Any sampler of diffusion_eqx as one file that a native program runs. The file is FORMAT.md's."""

from diffusion_eqx_export.artifact import Artifact as Artifact
from diffusion_eqx_export.artifact import read_artifact as read_artifact
from diffusion_eqx_export.errors import ArtifactError as ArtifactError
from diffusion_eqx_export.errors import NoCPUBackend as NoCPUBackend
from diffusion_eqx_export.errors import NotExportable as NotExportable
from diffusion_eqx_export.export import export_sampler as export_sampler
from diffusion_eqx_export.verify import Verdict as Verdict
from diffusion_eqx_export.verify import verify as verify
