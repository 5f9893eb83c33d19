"""Compiled programs are kept on disk, so that a second start is fast."""

import hashlib
import os
import platform
from pathlib import Path

import jax

from diffusion_eqx._face import face as _face

# What is kept; the oldest programs go when there is more.
_LIMIT = 4 * 1024**3


def use_compile_cache(folder: str | Path | None = None, *, limit: int = _LIMIT) -> Path | None:
    """Keep every program that jax compiles in a folder, and take it from there the next time.

    - `folder`: `diffusion_eqx` in the user's cache folder (`$XDG_CACHE_HOME`, or `~/.cache`) by default.
    - `limit`: bytes that the folder may hold; the programs least recently used go first.

    Returns the folder of this machine's programs; machines with other processors have folders of their own.
    Returns None, and changes nothing, where the environment or jax's configuration has chosen already
    (`JAX_COMPILATION_CACHE_DIR`, `JAX_ENABLE_COMPILATION_CACHE=false`), or where there can be no folder.

    jax by itself keeps only what takes a second or more to compile. A training run starts with some 250
    programs that take less, and together seconds.
    """
    chosen = jax.config.jax_compilation_cache_dir is not None  # pyright: ignore[reportAttributeAccessIssue]
    if chosen or not jax.config.jax_enable_compilation_cache:  # pyright: ignore[reportAttributeAccessIssue]
        return None
    if folder is None:
        caches = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        folder = Path(caches) / "diffusion_eqx"
    place = Path(folder) / f"programs-{_machine()}"
    try:
        place.mkdir(parents=True, exist_ok=True)
        _trim(place, limit)
    except OSError:
        # A read-only home: one compiles as before.
        return None
    jax.config.update("jax_compilation_cache_dir", str(place))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    return place


def _machine() -> str:
    """A short name of the processor: machine code made for one may not run on another."""
    known = f"{platform.machine()} {platform.processor()}"
    described = Path("/proc/cpuinfo")
    if described.exists():
        lines = described.read_text(errors="replace").splitlines()
        known += next((line for line in lines if line.startswith(("flags", "Features"))), "")
    return hashlib.sha256(known.encode()).hexdigest()[:8]


def _trim(folder: Path, limit: int) -> None:
    """Delete the files least recently used until the rest is within the limit."""
    found = [(path, path.stat()) for path in folder.iterdir() if path.is_file()]
    total = sum(state.st_size for _, state in found)
    for path, state in sorted(found, key=lambda entry: max(entry[1].st_atime, entry[1].st_mtime)):
        if total <= limit:
            return
        path.unlink(missing_ok=True)
        total -= state.st_size


__dir__ = _face(globals())
