"""By what a run is computed: versions, devices, the user's commit. It does not decide what run it is."""

import hashlib
import importlib.metadata
import platform
import subprocess
import sys
import time
from collections import Counter
from typing import Any

import equinox as eqx
import jax
import numpy as np

from diffusion_eqx.random_keys import to_numbers

_PACKAGES = ("jax", "jaxlib", "equinox", "optax", "diffusion-eqx")


def describe_launch(network: Any, steps: int) -> dict[str, Any]:
    """What computes a run now, as JSON.

    - `network`: with its initial weights, of which the digest is taken.
    - `steps`: the length of the run, which may change where the learning rate allows it.
    """
    versions = {name.replace("-", "_"): _version(name) for name in _PACKAGES}
    devices = Counter(device.device_kind for device in jax.devices())
    return {
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "command": list(sys.argv),
        "steps": steps,
        "versions": {"python": platform.python_version(), **versions},
        "git": _git(),
        "devices": dict(devices),
        "processes": jax.process_count(),
        "initial_weights": _digest(network),
    }


def differences(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """What of the launch before is another now, each as "name was …, is …"; times and commands aside."""
    names = ("versions", "git", "devices", "processes", "initial_weights")
    old, new = (_flat({name: launch.get(name) for name in names}) for launch in (before, now))
    return [
        f"{name} was {old.get(name)}, is {new.get(name)}"
        for name in sorted(old.keys() | new.keys())
        if old.get(name) != new.get(name)
    ]


def _digest(network: Any) -> str:
    """SHA-256 of all arrays in their order. They lie on one device still, and nothing need be compiled."""
    content = hashlib.sha256()
    for leaf in jax.tree.leaves(to_numbers(eqx.filter(network, eqx.is_array))):
        array = np.asarray(leaf)
        content.update(f"{array.dtype}{array.shape}".encode() + array.tobytes())
    return content.hexdigest()


def _flat(launch: dict[str, Any]) -> dict[str, Any]:
    flat = {}
    for name, value in launch.items():
        if name in ("versions", "git") and isinstance(value, dict):
            flat |= (
                value if name == "versions" else {f"git {key}": one for key, one in value.items()}
            )
        else:
            flat[name.replace("_", " ")] = value
    return flat


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:  # Run from its sources.
        return None


def _git() -> dict[str, Any] | None:
    """The commit of the working directory, and whether files that git knows were changed since."""
    commit = _said_by_git("rev-parse", "HEAD")
    if commit is None:
        return None
    # Files that git does not know count for nothing: the run's own folder may be among them.
    changed = _said_by_git("status", "--porcelain", "--untracked-files=no")
    return {"commit": commit, "dirty": bool(changed)}


def _said_by_git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", *arguments], capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
