"""The errors of exporting and of reading artifacts. All are `ValueError`s."""


class ArtifactError(ValueError):
    """The file is not an artifact, is damaged, or has a version that this release does not know."""


class NotExportable(ValueError):
    """The programs would need something that a native plugin, or this Python, does not have."""


class NoCPUBackend(NotExportable):
    """JAX has no CPU backend here, and reference images are drawn and verified on one."""
